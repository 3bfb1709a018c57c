package lifecycle

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/runcopts"
)

const (
	checkpointType       = "application/vnd.containerd.container.criu.checkpoint.criu.tar"
	checkpointConfigType = "application/vnd.containerd.container.checkpoint.config.v1+proto"
)

// criuStandIn puts a `criu` and an OCI runtime that imitates its use first in PATH, because CRIU does not work on
// every kernel that runs the tests. A dump is a file. A restore starts the container from its beginning if that file
// exists. The returned file lists the arguments of each call.
func criuStandIn(t *testing.T) (calls string) {
	t.Helper()
	runc, err := exec.LookPath("runc")
	harness.Must(t, err)
	dir := t.TempDir()
	calls = filepath.Join(dir, "calls")
	harness.Must(t, os.WriteFile(filepath.Join(dir, "criu"), []byte("#!/bin/sh\n"), 0o755))
	script := `#!/bin/sh
verb= next= leave=
for a in "$@"; do
	case $next in image) image=$a;; pid) pid=$a;; bundle) bundle=$a;; root) root=$a;; work) work=$a;; esac
	next=
	case $a in
	checkpoint|restore) verb=$a;;
	--image-path) next=image;; --pid-file) next=pid;; --bundle) next=bundle;; --root) next=root;; --work-path) next=work;;
	--leave-running) leave=1;;
	esac
	id=$a
done
[ -z "$verb" ] || echo "$@" >>` + calls + `
case $verb in
checkpoint)
	[ -d "$work" ] || exit 8
	mkdir -p "$image/sub" && echo "$id" >"$image/pages-1.img" && echo more >"$image/sub/file" || exit 8
	[ -n "$leave" ] || exec ` + runc + ` --root "$root" kill "$id" KILL
	exit 0;;
restore)
	[ -d "$work" ] && [ -f "$image/pages-1.img" ] && [ -f "$image/sub/file" ] || exit 9
	exec ` + runc + ` --root "$root" run --detach --bundle "$bundle" --pid-file "$pid" "$id";;
esac
exec ` + runc + ` "$@"
`
	harness.Must(t, os.WriteFile(filepath.Join(dir, "runc"), []byte(script), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return calls
}

// checkpoints is the lease of the tests of checkpoints. Without it their blobs are garbage.
const checkpoints = "checkpoints"

// leased creates that lease and returns a context of its requests.
func leased(ctx context.Context, d *harness.Daemon, conn *grpc.ClientConn) context.Context {
	d.T.Helper()
	_, err := leasesapi.NewLeasesClient(conn).Create(ctx, &leasesapi.CreateRequest{ID: checkpoints})
	harness.Must(d.T, err)
	return metadata.AppendToOutgoingContext(ctx, "containerd-lease", checkpoints)
}

// blob reads a blob over the API.
func blob(ctx context.Context, t *testing.T, conn *grpc.ClientConn, dgst string) []byte {
	t.Helper()
	stream, err := contentapi.NewContentClient(conn).Read(ctx, &contentapi.ReadContentRequest{Digest: dgst})
	harness.Must(t, err)
	var data []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return data
		}
		harness.Must(t, err)
		data = append(data, part.Data...)
	}
}

// writeBlob writes a blob over the API.
func writeBlob(ctx context.Context, t *testing.T, conn *grpc.ClientConn, data []byte) string {
	t.Helper()
	dgst := digest.FromBytes(data).String()
	stream, err := contentapi.NewContentClient(conn).Write(ctx)
	harness.Must(t, err)
	harness.Must(t, stream.Send(&contentapi.WriteContentRequest{
		Action: contentapi.WriteAction_COMMIT, Ref: dgst, Data: data, Total: int64(len(data)), Expected: dgst,
	}))
	_, err = stream.Recv()
	harness.Must(t, err)
	harness.Must(t, stream.CloseSend())
	return dgst
}

func TestCheckpoint_CanBeRestored(t *testing.T) {
	calls := criuStandIn(t)
	d := harness.Start(t)
	_, conn := fixture.GRPC(d)
	ctx, tasks := fixture.CreateTask(d, "one", fixture.BusyboxSpec(t, "sleep", "1000"), "")
	ctx = leased(ctx, d, conn)
	fixture.StartTask(ctx, d, tasks, "one")
	written, err := tasks.Checkpoint(ctx, &tasksapi.CheckpointTaskRequest{ContainerID: "one"})
	harness.Must(t, err)
	if len(written.Descriptors) != 2 || written.Descriptors[0].MediaType != checkpointType || written.Descriptors[1].MediaType != checkpointConfigType {
		t.Fatalf("a checkpoint is %v", written)
	}
	checkpoint := written.Descriptors[0]
	if names := tarNames(t, blob(ctx, t, conn, checkpoint.Digest)); !strings.Contains(names, "pages-1.img\n") || !strings.Contains(names, "sub/file\n") {
		t.Errorf("checkpoint holds %q", names)
	}
	var spec anypb.Any
	if err := proto.Unmarshal(blob(ctx, t, conn, written.Descriptors[1].Digest), &spec); err != nil || !bytes.Contains(spec.Value, []byte(`"sleep"`)) {
		t.Errorf("spec of the checkpoint: %v, %v", &spec, err)
	}
	for _, desc := range written.Descriptors {
		if int64(len(blob(ctx, t, conn, desc.Digest))) != desc.Size {
			t.Errorf("size of %v differs", desc)
		}
	}
	d.Status("one", "running")

	// A second checkpoint has the same blobs, which is not an error.
	again, err := tasks.Checkpoint(ctx, &tasksapi.CheckpointTaskRequest{ContainerID: "one"})
	if err != nil || len(again.GetDescriptors()) != 2 || again.Descriptors[1].Digest != written.Descriptors[1].Digest {
		t.Errorf("a second checkpoint: %v, %v", again, err)
	}
	// Checkpoint to a directory, and stop.
	dir := filepath.Join(t.TempDir(), "image")
	options, err := rpc.Marshal(&runcopts.CheckpointOptions{Exit: true, ImagePath: dir})
	harness.Must(t, err)
	none, err := tasks.Checkpoint(ctx, &tasksapi.CheckpointTaskRequest{
		ContainerID: "one", Options: &anypb.Any{TypeUrl: "containerd.runc.v1.CheckpointOptions", Value: options},
	})
	if err != nil || len(none.Descriptors) != 0 {
		t.Errorf("a checkpoint to a directory: %v, %v", none, err)
	}
	harness.Must(t, harness.Exists(filepath.Join(dir, "pages-1.img"))())
	fixture.WaitTask(ctx, d, tasks, "one", 137)
	if left, err := filepath.Glob(filepath.Join(d.Root, "io.containerd.runtime.v2.task/default/one/*")); err != nil || len(left) > 0 {
		t.Errorf("remains of checkpoints: %v, %v", left, err)
	}

	// Create a task from the checkpoint.
	fixture.DeleteTask(ctx, d, tasks, "one")
	restore := func(from *types.Descriptor) error {
		_, err := tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: "one", Rootfs: fixture.Rootfs(d), Checkpoint: from})
		return err
	}
	harness.Must(t, restore(checkpoint))
	if got, err := tasks.Get(ctx, &tasksapi.GetRequest{ContainerID: "one"}); err != nil || got.Process.Status != tasktypes.Status_CREATED || got.Process.Pid != 0 {
		t.Errorf("created from a checkpoint: %v, %v", got, err)
	}
	if _, err := tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: "one", Signal: 9}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("kill before it was restored: %v", err)
	}
	d.Restart()
	ctx, conn = fixture.GRPC(d)
	ctx, tasks = metadata.AppendToOutgoingContext(ctx, "containerd-lease", checkpoints), tasksapi.NewTasksClient(conn)
	d.Status("one", "created")
	if pid := fixture.StartTask(ctx, d, tasks, "one"); !harness.Alive(pid) {
		t.Errorf("no restored process %d", pid)
	}
	if c := d.Status("one", "running"); c.Pid == 0 {
		t.Errorf("restored: %+v", c)
	}
	_, err = tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: "one", Signal: uint32(unix.SIGKILL)})
	harness.Must(t, err)
	fixture.WaitTask(ctx, d, tasks, "one", 137)
	fixture.DeleteTask(ctx, d, tasks, "one")

	// A task that was not started, and one that cannot be restored.
	harness.Must(t, restore(checkpoint))
	fixture.DeleteTask(ctx, d, tasks, "one")
	empty := writeBlob(ctx, t, conn, make([]byte, 1024))
	harness.Must(t, restore(&types.Descriptor{MediaType: checkpointType, Digest: empty, Size: 1024}))
	for range 2 {
		if _, err := tasks.Start(ctx, &tasksapi.StartRequest{ContainerID: "one"}); err == nil || !strings.Contains(err.Error(), "restore") {
			t.Errorf("start from a checkpoint without its files: %v", err)
		}
	}
	fixture.DeleteTask(ctx, d, tasks, "one")
	data, err := os.ReadFile(calls)
	harness.Must(t, err)
	if n := strings.Count(string(data), " restore "); n != 3 {
		t.Errorf("%d restores by the OCI runtime:\n%s", n, data)
	}
}

func tarNames(t *testing.T, data []byte) string {
	t.Helper()
	var names strings.Builder
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names.String()
		}
		harness.Must(t, err)
		names.WriteString(h.Name + "\n")
	}
}

// TestCheckpoint_ByCtr stores a container in an image and restores it, by ctr.
func TestCheckpoint_ByCtr(t *testing.T) {
	criuStandIn(t)
	d := harness.Start(t)
	ok := func(args ...string) string {
		t.Helper()
		stdout, stderr, code := harness.Ctr(t, d.Address, args...)
		if code != 0 {
			t.Fatalf("ctr %q: code %d, %q, %q\n%s", args, code, stdout, stderr, d.Log())
		}
		return stdout
	}
	image := "docker.io/library/busybox:latest"
	ok("images", "import", "--index-name", image, harness.BusyboxArchive(t))
	ok("run", "-d", "--fifo-dir", t.TempDir(), image, "one", "sleep", "1000")
	ok("containers", "checkpoint", "--task", "--rw", "--image", "one", "checkpoint.example/one:1")
	ok("containers", "checkpoint", "--task", "one", "checkpoint.example/one:2")
	ok("tasks", "checkpoint", "one")
	d.Status("one", "running")
	d.Cleat("gc") // the image refers to its blobs
	ok("containers", "restore", "--live", "--rw", "two", "checkpoint.example/one:1")
	if text := ok("tasks", "ls"); strings.Count(text, "RUNNING") != 2 {
		t.Errorf("tasks:\n%s", text)
	}
	for _, id := range []string{"one", "two"} {
		ok("tasks", "kill", "--signal", "SIGKILL", id)
		d.Status(id, "stopped")
		ok("tasks", "rm", "--force", id)
		ok("containers", "rm", id)
	}
}

// TestCheckpoint_InvalidRequest_LeavesNothing sends every kind of request that must fail.
func TestCheckpoint_InvalidRequest_LeavesNothing(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	_, conn := fixture.GRPC(d)
	ctx, tasks := fixture.CreateTask(d, "c", fixture.BusyboxSpec(t, "sleep", "1000"), "")
	ctx = leased(ctx, d, conn)
	fixture.StartTask(ctx, d, tasks, "c")
	// CRIU is missing, or does not support the kernel.
	for _, dir := range []string{"", filepath.Join(t.TempDir(), "image")} {
		options, err := rpc.Marshal(&runcopts.CheckpointOptions{ImagePath: dir})
		harness.Must(t, err)
		_, err = tasks.Checkpoint(ctx, &tasksapi.CheckpointTaskRequest{
			ContainerID: "c", Options: &anypb.Any{TypeUrl: "containerd.runc.v1.CheckpointOptions", Value: options},
		})
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(strings.ToLower(err.Error()), "criu") {
			t.Errorf("checkpoint to %q: %v", dir, err)
		}
	}
	if _, err := tasks.Checkpoint(ctx, &tasksapi.CheckpointTaskRequest{ContainerID: "c", Options: &anypb.Any{Value: []byte{0xff}}}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("checkpoint with invalid options: %v", err)
	}
	d.Status("c", "running")
	_, err := tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: "c", Signal: uint32(unix.SIGKILL)})
	harness.Must(t, err)
	fixture.WaitTask(ctx, d, tasks, "c", 137)
	if _, err := tasks.Checkpoint(ctx, &tasksapi.CheckpointTaskRequest{ContainerID: "c"}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("checkpoint of an ended task: %v", err)
	}
	fixture.DeleteTask(ctx, d, tasks, "c")

	valid := writeBlob(ctx, t, conn, make([]byte, 1024))
	for name, tt := range map[string]struct {
		from *types.Descriptor
		want codes.Code
	}{
		"nothing":      {&types.Descriptor{}, codes.InvalidArgument},
		"another type": {&types.Descriptor{MediaType: "text/plain", Digest: valid}, codes.InvalidArgument},
		"no digest":    {&types.Descriptor{MediaType: checkpointType, Digest: "x"}, codes.InvalidArgument},
		"missing blob": {&types.Descriptor{MediaType: checkpointType, Digest: digest.FromString("not there").String()}, codes.NotFound},
		"another size": {&types.Descriptor{MediaType: checkpointType, Digest: valid, Size: 3}, codes.InvalidArgument},
		"without CRIU": {&types.Descriptor{MediaType: checkpointType, Digest: valid}, codes.FailedPrecondition},
	} {
		_, err := tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: "c", Rootfs: fixture.Rootfs(d), Checkpoint: tt.from})
		if _, have := exec.LookPath("criu"); name == "without CRIU" && have == nil {
			harness.Must(t, err) // an empty archive is accepted, and fails at start
			if _, err := tasks.Start(ctx, &tasksapi.StartRequest{ContainerID: "c"}); err == nil {
				t.Error("nothing was restored")
			}
			fixture.DeleteTask(ctx, d, tasks, "c")
			continue
		}
		if status.Code(err) != tt.want {
			t.Errorf("create from %s: %v, want %v", name, err, tt.want)
		}
		if _, err := tasks.Get(ctx, &tasksapi.GetRequest{ContainerID: "c"}); status.Code(err) != codes.NotFound {
			t.Errorf("%s leaves a task: %v", name, err)
		}
	}
}

// TestRestore_HostileCheckpoint_StaysInside restores archives that would write outside the image directory.
func TestRestore_HostileCheckpoint_StaysInside(t *testing.T) {
	criuStandIn(t)
	d := harness.Start(t)
	_, conn := fixture.GRPC(d)
	ctx, tasks := fixture.CreateTask(d, "c", fixture.BusyboxSpec(t, "true"), "")
	ctx = leased(ctx, d, conn)
	fixture.StartTask(ctx, d, tasks, "c")
	fixture.WaitTask(ctx, d, tasks, "c", 0)
	fixture.DeleteTask(ctx, d, tasks, "c")
	outside := filepath.Join(t.TempDir(), "outside")
	harness.Must(t, os.Mkdir(outside, 0o700))
	for name, headers := range map[string][]*tar.Header{
		"path upwards": {{Name: strings.Repeat("../", 20) + outside[1:] + "/file", Typeflag: tar.TypeReg, Size: 1, Mode: 0o644}},
		"a link":       {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: outside}, {Name: "l/file", Typeflag: tar.TypeReg, Size: 1, Mode: 0o644}},
		"torn":         {{Name: "f", Typeflag: tar.TypeReg, Size: 100 << 10, Mode: 0o644}},
		"another kind": {},
	} {
		var data bytes.Buffer
		w := tar.NewWriter(&data)
		for _, h := range headers {
			harness.Must(t, w.WriteHeader(h))
			if h.Size == 1 {
				_, err := w.Write([]byte("x"))
				harness.Must(t, err)
			}
		}
		if name == "another kind" {
			data.WriteString(strings.Repeat("no tar archive ", 100))
		}
		_, err := tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: "c", Rootfs: fixture.Rootfs(d), Checkpoint: &types.Descriptor{
			MediaType: checkpointType, Digest: writeBlob(ctx, t, conn, data.Bytes()),
		}})
		if err == nil { // it stayed inside
			fixture.DeleteTask(ctx, d, tasks, "c")
		} else if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
			t.Errorf("%s wrote outside: %v, %v", name, left, err)
		}
		if (name == "torn" || name == "another kind") && err == nil {
			t.Errorf("%s is restored from", name)
		}
	}
}
