package api

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// fieldsMarked returns the fields with this mark in the table of daemon/api.
func fieldsMarked(t *testing.T, mark string) (names []string) {
	t.Helper()
	data, err := os.ReadFile("../../daemon/api/testdata/fields.txt")
	harness.Must(t, err)
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 2 && f[1] == mark {
			names = append(names, f[0])
		}
	}
	return names
}

// TestRejectedFields_FailByName sets each field that the table marks as rejected.
func TestRejectedFields_FailByName(t *testing.T) {
	t.Parallel()
	d := harness.StartUncollected(t)
	ctx, tasks := fixture.CreateTask(d, "c", fixture.BusyboxSpec(t, "sleep", "1000"), "")
	fixture.StartTask(ctx, d, tasks, "c")
	_, conn := fixture.GRPC(d)
	snapshots := snapshotsapi.NewSnapshotsClient(conn)
	for key, parent := range map[string]string{"base": "", "active": ""} {
		_, err := snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: key, Parent: parent})
		harness.Must(t, err)
	}
	_, err := snapshots.Commit(ctx, &snapshotsapi.CommitSnapshotRequest{Snapshotter: "overlayfs", Key: "base", Name: "committed"})
	harness.Must(t, err)
	calls := map[string]func() error{
		"containerd.services.tasks.v1.CheckpointTaskRequest.parent_checkpoint": func() error {
			_, err := tasks.Checkpoint(ctx, &tasksapi.CheckpointTaskRequest{ContainerID: "c", ParentCheckpoint: "sha256:x"})
			return err
		},
		"containerd.services.snapshots.v1.CommitSnapshotRequest.parent": func() error {
			_, err := snapshots.Commit(ctx, &snapshotsapi.CommitSnapshotRequest{Snapshotter: "overlayfs", Key: "active", Name: "n", Parent: "committed"})
			return err
		},
	}
	marked := fieldsMarked(t, "rejected")
	for _, field := range marked {
		call, ok := calls[field]
		if !ok {
			t.Errorf("no call for %s", field)
			continue
		}
		err := call()
		name := field[strings.LastIndexByte(field, '.')+1:]
		if code := status.Code(err); code != codes.Unimplemented && code != codes.InvalidArgument || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", field, err)
		}
	}
	for field := range calls {
		if !slices.Contains(marked, field) {
			t.Errorf("%s is not marked as rejected", field)
		}
	}
	_, err = tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: "c", Signal: 9})
	harness.Must(t, err)
	fixture.WaitTask(ctx, d, tasks, "c", 137)
	_, err = tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: "c"})
	harness.Must(t, err)
}

// TestOutputFields_SentByClient_AreIgnored sends times back, as a client does that changes a received record.
func TestOutputFields_SentByClient_AreIgnored(t *testing.T) {
	t.Parallel()
	d := harness.StartUncollected(t)
	ctx, conn := fixture.GRPC(d)
	old := timestamppb.New(time.Unix(1000, 0))
	recent := func(what string, times ...*timestamppb.Timestamp) {
		t.Helper()
		for _, at := range times {
			if time.Since(at.AsTime()) > time.Hour {
				t.Errorf("%s has the time %v", what, at.AsTime())
			}
		}
	}
	containers := containersapi.NewContainersClient(conn)
	c, err := containers.Create(ctx, &containersapi.CreateContainerRequest{Container: &containersapi.Container{
		ID: "c", Runtime: &containersapi.Container_Runtime{Name: "io.containerd.runc.v2"},
		Spec: &anypb.Any{TypeUrl: "x", Value: []byte("{}")}, CreatedAt: old, UpdatedAt: old,
	}})
	harness.Must(t, err)
	recent("a container", c.GetContainer().GetCreatedAt(), c.GetContainer().GetUpdatedAt())

	d.Busybox()
	images := imagesapi.NewImagesClient(conn)
	got, err := images.Get(ctx, &imagesapi.GetImageRequest{Name: imageName(d, "busybox")})
	harness.Must(t, err)
	copied := got.GetImage()
	copied.Name, copied.CreatedAt, copied.UpdatedAt = "copy", old, old
	made, err := images.Create(ctx, &imagesapi.CreateImageRequest{Image: copied})
	harness.Must(t, err)
	recent("an image", made.GetImage().GetCreatedAt(), made.GetImage().GetUpdatedAt())

	// The field source_date_epoch sets both times.
	copied.Name = "reproducible"
	made, err = images.Create(ctx, &imagesapi.CreateImageRequest{Image: copied, SourceDateEpoch: old})
	harness.Must(t, err)
	if at := made.GetImage(); !at.GetCreatedAt().AsTime().Equal(old.AsTime()) || !at.GetUpdatedAt().AsTime().Equal(old.AsTime()) {
		t.Errorf("an image with source_date_epoch has the times %v, %v", at.GetCreatedAt().AsTime(), at.GetUpdatedAt().AsTime())
	}
	made2, err := images.Update(ctx, &imagesapi.UpdateImageRequest{Image: copied, SourceDateEpoch: timestamppb.New(time.Unix(2000, 0))})
	harness.Must(t, err)
	if at := made2.GetImage(); at.GetUpdatedAt().GetSeconds() != 2000 || at.GetCreatedAt().GetSeconds() != 1000 {
		t.Errorf("an image updated with source_date_epoch has the times %v, %v", at.GetCreatedAt().AsTime(), at.GetUpdatedAt().AsTime())
	}
	_, err = containers.Delete(ctx, &containersapi.DeleteContainerRequest{ID: "c"})
	harness.Must(t, err)
}

// imageName returns the full name of an image.
func imageName(d *harness.Daemon, name string) string {
	d.T.Helper()
	ctx, conn := fixture.GRPC(d)
	list, err := imagesapi.NewImagesClient(conn).List(ctx, &imagesapi.ListImagesRequest{})
	harness.Must(d.T, err)
	for _, i := range list.GetImages() {
		if strings.Contains(i.GetName(), name) {
			return i.GetName()
		}
	}
	d.T.Fatalf("image %s is missing", name)
	return ""
}

// TestTaskFields_AreHonoured covers fields that are easily overlooked.
func TestTaskFields_AreHonoured(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ctx, tasks := fixture.CreateTask(d, "one", fixture.BusyboxSpec(t, "sleep", "1000"), "")
	fixture.StartTask(ctx, d, tasks, "one")
	for filter, want := range map[string]int{"": 1, "id==one": 1, "id==two": 0, "status==RUNNING": 1, "status==STOPPED": 0} {
		list, err := tasks.List(ctx, &tasksapi.ListTasksRequest{Filter: filter})
		harness.Must(t, err)
		if len(list.GetTasks()) != want {
			t.Errorf("filter %q lists %v", filter, list.GetTasks())
		}
	}
	if _, err := tasks.List(ctx, &tasksapi.ListTasksRequest{Filter: "id=="}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a bad filter: %v", err)
	}
	if _, err := tasks.CloseIO(ctx, &tasksapi.CloseIORequest{ContainerID: "one"}); err != nil {
		t.Errorf("close without streams: %v", err)
	}
	if _, err := tasks.CloseIO(ctx, &tasksapi.CloseIORequest{ContainerID: "two"}); status.Code(err) != codes.NotFound {
		t.Errorf("close of a missing task: %v", err)
	}
	_, conn := fixture.GRPC(d)
	options, err := anypb.New(&runcoptions.Options{TaskApiAddress: "ttrpc+unix:///nonexistent", TaskApiVersion: 3}) //nolint:staticcheck // deprecated, and sent by older clients
	harness.Must(t, err)
	_, err = containersapi.NewContainersClient(conn).Create(ctx, &containersapi.CreateContainerRequest{Container: &containersapi.Container{
		ID: "two", Runtime: &containersapi.Container_Runtime{Name: "io.containerd.runc.v2"},
		Spec: &anypb.Any{TypeUrl: "x", Value: []byte("{}")},
	}})
	harness.Must(t, err)
	if _, err := tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: "two", Options: options}); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("create in a missing shim: %v", err)
	}
	_, err = tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: "one", Signal: 9})
	harness.Must(t, err)
	fixture.WaitTask(ctx, d, tasks, "one", 137)
	_, err = tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: "one"})
	harness.Must(t, err)
}
