package api

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	mountsapi "github.com/containerd/containerd/api/services/mounts/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/proto/rpc"
)

// fileBacked is a writable root file system on a directory. Its changes are stored in a file system in a file.
func fileBacked(lower, image string) []*types.Mount {
	return []*types.Mount{
		{Type: "mkfs/loop", Source: image, Options: []string{"X-containerd.mkfs.size=32MiB"}},
		{Type: "format/ext4", Source: "{{ source 0 }}"},
		{Type: "format/mkdir/overlay", Source: "overlay", Options: []string{
			"X-containerd.mkdir.path={{ mount 1 }}/upper:0755", "X-containerd.mkdir.path={{ mount 1 }}/work:0755",
			"lowerdir=" + lower, "upperdir={{ mount 1 }}/upper", "workdir={{ mount 1 }}/work",
		}},
	}
}

// unattached returns an error while a loop device is attached to the file. It is detached with the last mount
// namespace of its file system, and a new container starts with a copy of the host's.
func unattached(t *testing.T, image string) error {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	harness.Must(t, err)
	for _, f := range files {
		if data, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(data)) == image {
			return fmt.Errorf("%s is attached", f)
		}
	}
	return nil
}

func TestMountsService(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	image := filepath.Join(t.TempDir(), "disk.img")
	ctx, conn := fixture.GRPC(d)
	client := mountsapi.NewMountsClient(conn)
	made, err := client.Activate(ctx, &mountsapi.ActivateRequest{Name: "m", Mounts: fileBacked(harness.Unpacked(t), image), Labels: map[string]string{"a": "1"}})
	harness.Must(t, err)
	if len(made.Info.Active) != 2 || len(made.Info.System) != 1 || made.Info.System[0].Type != "overlay" || made.Info.Active[0].MountedAt == nil {
		t.Fatalf("activated %v", made.Info)
	}
	root := t.TempDir()
	system := made.Info.System[0]
	harness.Must(t, mount.All([]mount.Mount{{Type: system.Type, Source: system.Source, Options: system.Options}}, root))
	if _, err := os.Stat(filepath.Join(root, "bin", "busybox")); err != nil {
		t.Error(err)
	}
	harness.Must(t, mount.UnmountAll(root, 0))

	d.Restart()
	ctx, conn = fixture.GRPC(d)
	client = mountsapi.NewMountsClient(conn)
	if _, err := client.Activate(ctx, &mountsapi.ActivateRequest{Name: "m", Mounts: fileBacked("/x", image)}); status.Code(err) != codes.AlreadyExists {
		t.Errorf("activated twice: %v", err)
	}
	update := func(paths ...string) (*mountsapi.UpdateResponse, error) {
		return client.Update(ctx, &mountsapi.UpdateRequest{
			Info: &types.ActivationInfo{Name: "m", Labels: map[string]string{"b": "2"}}, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths},
		})
	}
	if _, err := update("system"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("update of a fixed field: %v", err)
	}
	updated, err := update("labels.b")
	harness.Must(t, err)
	if l := updated.Info.Labels; l["a"] != "1" || l["b"] != "2" {
		t.Errorf("labels %v", l)
	}
	for filter, want := range map[string]int{"labels.b==2": 1, "labels.b==3": 0, "name==m": 1} {
		stream, err := client.List(ctx, &mountsapi.ListRequest{Filters: []string{filter}})
		harness.Must(t, err)
		n := 0
		for {
			if _, err := stream.Recv(); err != nil {
				break
			}
			n++
		}
		if n != want {
			t.Errorf("%s lists %d", filter, n)
		}
	}
	other := metadata.NewOutgoingContext(ctx, metadata.Pairs("containerd-namespace", "other"))
	if _, err := client.Info(other, &mountsapi.InfoRequest{Name: "m"}); status.Code(err) != codes.NotFound {
		t.Errorf("visible in another namespace: %v", err)
	}
	tclient, err := rpc.Dial(t.Context(), d.Address+".ttrpc")
	harness.Must(t, err)
	defer tclient.Close()
	_, err = mountsapi.NewTTRPCMountsClient(tclient).Deactivate(ttrpc.WithMetadata(t.Context(), ttrpc.MD{"containerd-namespace-ttrpc": {"default"}}), &mountsapi.DeactivateRequest{Name: "m"})
	harness.Must(t, err)
	d.Eventually("the device is detached", func() error { return unattached(t, image) })
	if _, err := client.Activate(ctx, &mountsapi.ActivateRequest{Name: "plain", Mounts: fixture.Rootfs(d)}); status.Code(err) != codes.Unimplemented {
		t.Errorf("mounts without activation: %v", err)
	}
}

// TestMounts_AreCollected activates mounts with and without a lease.
func TestMounts_AreCollected(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	client, leases := mountsapi.NewMountsClient(conn), leasesapi.NewLeasesClient(conn)
	_, err := leases.Create(ctx, &leasesapi.CreateRequest{ID: "l"})
	harness.Must(t, err)
	activate := func(ctx context.Context, name string, labels map[string]string) error {
		_, err := client.Activate(ctx, &mountsapi.ActivateRequest{
			Name: name, Mounts: []*types.Mount{{Type: "tmpfs", Source: "tmpfs"}}, Temporary: true, Labels: labels,
		})
		return err
	}
	there := func(name string) bool {
		t.Helper()
		_, err := client.Info(ctx, &mountsapi.InfoRequest{Name: name})
		if status.Code(err) != codes.NotFound {
			harness.Must(t, err)
		}
		return err == nil
	}
	harness.Must(t, activate(metadata.AppendToOutgoingContext(ctx, "containerd-lease", "l"), "leased", nil))
	harness.Must(t, activate(ctx, "free", nil))
	harness.Must(t, activate(ctx, "orphan", map[string]string{"containerd.io/gc.bref.container": "gone", "containerd.io/gc.bref.snapshot.overlayfs.x": "gone"}))
	if err := activate(metadata.AppendToOutgoingContext(ctx, "containerd-lease", "none"), "never", nil); status.Code(err) != codes.NotFound {
		t.Errorf("with a missing lease: %v", err)
	}
	d.Cleat("gc")
	if !there("leased") || !there("free") || there("orphan") {
		t.Errorf("after a collection: leased %v, free %v, orphan %v", there("leased"), there("free"), there("orphan"))
	}
	_, err = leases.Delete(ctx, &leasesapi.DeleteRequest{ID: "l", Sync: true})
	harness.Must(t, err)
	if there("leased") {
		t.Error("an activation outlives its lease")
	}
	_, err = client.Deactivate(ctx, &mountsapi.DeactivateRequest{Name: "free"})
	harness.Must(t, err)
}

// TestTask_RootWithActivatedMounts creates a task from mounts that the kernel cannot mount, twice.
func TestTask_RootWithActivatedMounts(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	image := filepath.Join(t.TempDir(), "disk.img")
	ctx, conn := fixture.GRPC(d)
	containers, tasks := containersapi.NewContainersClient(conn), tasksapi.NewTasksClient(conn)
	_, err := containers.Create(ctx, &containersapi.CreateContainerRequest{Container: &containersapi.Container{
		ID: "c", Spec: fixture.APISpec(t, fixture.BusyboxSpec(t, "sh", "-c", "test -e /once && exit 2; touch /once; exit 1")),
		Runtime: &containersapi.Container_Runtime{Name: "io.containerd.cleat.v2"},
	}})
	harness.Must(t, err)
	for _, want := range []uint32{1, 2} {
		_, err := tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: "c", Rootfs: fileBacked(harness.Unpacked(t), image)})
		harness.Must(t, err)
		if _, err := tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: "c", Rootfs: fileBacked(harness.Unpacked(t), image)}); status.Code(err) != codes.AlreadyExists {
			t.Errorf("create twice: %v", err)
		}
		fixture.StartTask(ctx, d, tasks, "c")
		fixture.WaitTask(ctx, d, tasks, "c", want)
		fixture.DeleteTask(ctx, d, tasks, "c")
	}
	_, err = tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: "c", Rootfs: []*types.Mount{{Type: "format/bind", Source: "{{ mount 4 }}"}}})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("create with bad mounts: %v", err)
	}
	_, err = containers.Delete(ctx, &containersapi.DeleteContainerRequest{ID: "c"})
	harness.Must(t, err)
	d.Cleat("gc")
	d.Eventually("the file is not attached", func() error { return unattached(t, image) })
	harness.Must(t, unix.Access(image, unix.R_OK))
	d.Eventually("nothing is left", func() error { return harness.Empty(filepath.Join(d.State, "m"), 1) })
}
