package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// restartLabel is the prefix of the published labels.
const restartLabel = "containerd.io/restart."

// restarting creates a container with a snapshot and with restart labels, and starts it.
func (d *Daemon) restarting(id, script string, labels ...string) {
	d.t.Helper()
	ctx, conn := d.grpc()
	snapshots := snapshotsapi.NewSnapshotsClient(conn)
	stream, err := snapshots.List(ctx, &snapshotsapi.ListSnapshotsRequest{Snapshotter: "overlayfs", Filters: []string{"kind==committed"}})
	must(d.t, err)
	committed, err := stream.Recv()
	must(d.t, err)
	data, err := json.Marshal(busyboxSpec(d.t, "sh", "-c", script))
	must(d.t, err)
	_, err = containersapi.NewContainersClient(conn).Create(ctx, &containersapi.CreateContainerRequest{Container: &containersapi.Container{
		ID: id, Runtime: &containersapi.Container_Runtime{Name: "io.containerd.runc.v2"}, Snapshotter: "overlayfs", SnapshotKey: id,
		Spec: &anypb.Any{TypeUrl: resourcesURL + "Spec", Value: data},
	}})
	must(d.t, err)
	_, err = snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: id, Parent: committed.Info[0].Name})
	must(d.t, err) // created before its snapshot, which would be garbage
	d.relabel(id, append(labels, "status=running")...)
	tasks := tasksapi.NewTasksClient(conn)
	_, err = tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: id})
	must(d.t, err)
	d.startTask(ctx, tasks, id)
}

func (d *Daemon) relabel(id string, labels ...string) {
	d.t.Helper()
	ctx, conn := d.grpc()
	c := &containersapi.Container{ID: id, Labels: make(map[string]string)}
	mask := &fieldmaskpb.FieldMask{}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		c.Labels[restartLabel+k] = v
		mask.Paths = append(mask.Paths, "labels."+restartLabel+k)
	}
	_, err := containersapi.NewContainersClient(conn).Update(ctx, &containersapi.UpdateContainerRequest{Container: c, UpdateMask: mask})
	must(d.t, err)
}

// restarted waits until a container has been restarted this number of times, such as "1 or 2", and has a status.
func (d *Daemon) restarted(id, count, status string) shown {
	d.t.Helper()
	ctx, conn := d.grpc()
	d.Eventually(id+" was restarted", func() error {
		resp, err := containersapi.NewContainersClient(conn).Get(ctx, &containersapi.GetContainerRequest{ID: id})
		if err != nil {
			return err
		}
		if got := resp.Container.Labels[restartLabel+"count"]; !slices.Contains(strings.Split(count, " or "), got) {
			return fmt.Errorf("count %q", got)
		}
		if c := d.all()[id]; c.Status != status {
			return fmt.Errorf("status %s", c.Status)
		}
		return nil
	})
	return d.ps(id)
}

func TestRestartLabels(t *testing.T) {
	d := Start(t)
	d.Busybox()
	log := filepath.Join(t.TempDir(), "log")
	d.restarting("fails", "exit 3", "policy=on-failure:2", "loguri=file://"+log)
	d.restarting("ends", "echo up; exit 0", "policy=on-failure:2")
	d.restarting("always", "echo up; sleep 1000", "policy=always", "loguri=file://"+log)
	d.restarting("unless", "sleep 1000", "policy=unless-stopped")

	d.restarted("fails", "2", "stopped")
	d.restarted("ends", "", "stopped")
	logged := func(want string) {
		t.Helper()
		d.Eventually("the log is in the labelled file", func() error {
			data, err := os.ReadFile(log)
			if err == nil && string(data) != want {
				err = fmt.Errorf("%q", data)
			}
			return err
		})
	}
	killPid(t, d.ps("always").Pid)
	pid := d.restarted("always", "1", "running").Pid
	logged("up\n")
	killPid(t, pid)
	d.restarted("always", "2", "running")
	logged("up\nup\n")
	d.relabel("unless", "explicitly-stopped=true")
	killPid(t, d.ps("unless").Pid)
	d.restarted("unless", "", "stopped")

	// Over a restart of the daemon: one that ended while it was away, and one whose bundle was lost in a reboot.
	pid = d.ps("always").Pid
	d.relabel("unless", "explicitly-stopped=")
	d.Kill9()
	killPid(t, pid)
	d.Begin()
	killPid(t, d.restarted("always", "3", "running").Pid)
	d.restarted("always", "4", "running")
	// The check may have followed the label, and a restart that dies with the daemon is counted.
	d.restarted("unless", "1 or 2", "running")

	d.relabel("always", "status=stopped")
	d.relabel("unless", "status=stopped")
	ctx, conn := d.grpc()
	d.Eventually("the containers are stopped", func() error {
		list, err := tasksapi.NewTasksClient(conn).List(ctx, &tasksapi.ListTasksRequest{})
		if err != nil {
			return err
		}
		for _, p := range list.Tasks {
			if p.ID == "always" || p.ID == "unless" {
				return errors.New(p.ID + " has a task")
			}
		}
		return nil
	})
}

func TestRestartLabels_OfImage_AreIgnored(t *testing.T) {
	d := Start(t)
	proof := filepath.Join(t.TempDir(), "proof")
	config := busyboxConfig()
	config.Labels = map[string]string{
		restartLabel + "status": "running", restartLabel + "policy": "always",
		restartLabel + "loguri": "binary:///bin/touch?" + proof + "=",
	}
	d.Cleat("image", "import", "--name", "busybox", ociArchive(t, [][]byte{tarOf(t, busyboxFiles(t))}, config, nil))
	d.Cleat("run", "-d", "--name", "c", "busybox", "false")
	d.status("c", "stopped")
	ctx, conn := d.grpc()
	resp, err := containersapi.NewContainersClient(conn).Get(ctx, &containersapi.GetContainerRequest{ID: "c"})
	must(t, err)
	for k := range resp.Container.Labels {
		if strings.HasPrefix(k, restartLabel) {
			t.Errorf("the container has the restart label %s of its image", k)
		}
	}
	if _, err := os.Stat(proof); err == nil {
		t.Error("a label of an image ran a program on the host")
	}
}
