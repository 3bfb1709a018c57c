package faults

import (
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
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// restartLabel is the prefix of the published labels.
const restartLabel = "containerd.io/restart."

// restarting creates a container with a snapshot and with restart labels, and starts it.
func restarting(d *harness.Daemon, id, script string, labels ...string) {
	d.T.Helper()
	ctx, conn := fixture.GRPC(d)
	snapshots := snapshotsapi.NewSnapshotsClient(conn)
	stream, err := snapshots.List(ctx, &snapshotsapi.ListSnapshotsRequest{Snapshotter: "overlayfs", Filters: []string{"kind==committed"}})
	harness.Must(d.T, err)
	committed, err := stream.Recv()
	harness.Must(d.T, err)
	_, err = containersapi.NewContainersClient(conn).Create(ctx, &containersapi.CreateContainerRequest{Container: &containersapi.Container{
		ID: id, Runtime: &containersapi.Container_Runtime{Name: "io.containerd.runc.v2"}, Snapshotter: "overlayfs", SnapshotKey: id,
		Spec: fixture.APISpec(d.T, fixture.BusyboxSpec(d.T, "sh", "-c", script)),
	}})
	harness.Must(d.T, err)
	_, err = snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: id, Parent: committed.Info[0].Name})
	harness.Must(d.T, err) // created before its snapshot, which would be garbage
	relabel(d, id, append(labels, "status=running")...)
	tasks := tasksapi.NewTasksClient(conn)
	_, err = tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: id})
	harness.Must(d.T, err)
	fixture.StartTask(ctx, d, tasks, id)
}

func relabel(d *harness.Daemon, id string, labels ...string) {
	d.T.Helper()
	ctx, conn := fixture.GRPC(d)
	c := &containersapi.Container{ID: id, Labels: make(map[string]string)}
	mask := &fieldmaskpb.FieldMask{}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		c.Labels[restartLabel+k] = v
		mask.Paths = append(mask.Paths, "labels."+restartLabel+k)
	}
	_, err := containersapi.NewContainersClient(conn).Update(ctx, &containersapi.UpdateContainerRequest{Container: c, UpdateMask: mask})
	harness.Must(d.T, err)
}

// restarted waits until a container has been restarted this number of times, such as "1 or 2", and has a status.
func restarted(d *harness.Daemon, id, count, status string) harness.Shown {
	d.T.Helper()
	ctx, conn := fixture.GRPC(d)
	d.Eventually(id+" was restarted", func() error {
		resp, err := containersapi.NewContainersClient(conn).Get(ctx, &containersapi.GetContainerRequest{ID: id})
		if err != nil {
			return err
		}
		if got := resp.Container.Labels[restartLabel+"count"]; !slices.Contains(strings.Split(count, " or "), got) {
			return fmt.Errorf("count %q", got)
		}
		if c := d.All()[id]; c.Status != status {
			return fmt.Errorf("status %s", c.Status)
		}
		return nil
	})
	return d.Ps(id)
}

func TestRestartLabels(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	log := filepath.Join(t.TempDir(), "log")
	restarting(d, "fails", "exit 3", "policy=on-failure:2", "loguri=file://"+log)
	restarting(d, "ends", "echo up; exit 0", "policy=on-failure:2")
	restarting(d, "always", "echo up; sleep 1000", "policy=always", "loguri=file://"+log)
	restarting(d, "unless", "sleep 1000", "policy=unless-stopped")

	restarted(d, "fails", "2", "stopped")
	restarted(d, "ends", "", "stopped")
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
	harness.KillPid(t, d.Ps("always").Pid)
	pid := restarted(d, "always", "1", "running").Pid
	logged("up\n")
	harness.KillPid(t, pid)
	restarted(d, "always", "2", "running")
	logged("up\nup\n")
	relabel(d, "unless", "explicitly-stopped=true")
	harness.KillPid(t, d.Ps("unless").Pid)
	restarted(d, "unless", "", "stopped")

	// Over a restart of the daemon: one that ended while it was away, and one whose bundle was lost in a reboot.
	pid = d.Ps("always").Pid
	relabel(d, "unless", "explicitly-stopped=")
	d.Kill9()
	harness.KillPid(t, pid)
	d.Begin()
	harness.KillPid(t, restarted(d, "always", "3", "running").Pid)
	restarted(d, "always", "4", "running")
	// The check may have followed the label, and a restart that dies with the daemon is counted.
	restarted(d, "unless", "1 or 2", "running")

	relabel(d, "always", "status=stopped")
	relabel(d, "unless", "status=stopped")
	ctx, conn := fixture.GRPC(d)
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
	t.Parallel()
	d := harness.Start(t)
	proof := filepath.Join(t.TempDir(), "proof")
	config := harness.BusyboxConfig()
	config.Labels = map[string]string{
		restartLabel + "status": "running", restartLabel + "policy": "always",
		restartLabel + "loguri": "binary:///bin/touch?" + proof + "=",
	}
	d.Cleat("image", "import", "--name", "busybox", harness.OCIArchive(t, [][]byte{harness.TarOf(t, harness.BusyboxFiles(t))}, config, nil))
	d.Cleat("run", "-d", "--name", "c", "busybox", "false")
	d.Status("c", "stopped")
	ctx, conn := fixture.GRPC(d)
	resp, err := containersapi.NewContainersClient(conn).Get(ctx, &containersapi.GetContainerRequest{ID: "c"})
	harness.Must(t, err)
	for k := range resp.Container.Labels {
		if strings.HasPrefix(k, restartLabel) {
			t.Errorf("the container has the restart label %s of its image", k)
		}
	}
	if _, err := os.Stat(proof); err == nil {
		t.Error("a label of an image ran a program on the host")
	}
}
