package lifecycle

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/rpc"
)

// The shim checks the FIFO that it has opened: if the FIFO at a path is exchanged after the daemon's check, the new
// one is not used.
func TestPolicy_ExchangedFIFO_IsRefused(t *testing.T) {
	t.Parallel()
	d, own := startWithPolicy(t, "")
	archive := filepath.Join(filepath.Dir(own), "busybox.tar")
	d.Cleat("image", "export", "--output", archive, "busybox")
	d.Cleat("--namespace", policySpace, "image", "import", archive)
	d.Cleat("--namespace", policySpace, "run", "--detach", "--name", "good", "busybox", "sleep", "1000")
	call := callers(d)["gRPC"]
	path := filepath.Join(own, "out")
	harness.Must(t, unix.Mkfifo(path, 0o600))
	harness.Must(t, os.Chown(path, policyUser, policyUser))
	harness.Must(t, call(tasksService, "Exec", &tasksapi.ExecProcessRequest{
		ContainerID: "good", ExecID: "x", Stdout: path, Spec: &anypb.Any{Value: []byte(`{"args":["id"],"cwd":"/"}`)},
	}, &emptypb.Empty{}))
	harness.Must(t, os.Remove(path))
	harness.Must(t, unix.Mkfifo(path, 0o600)) // owned by root
	err := call(tasksService, "Start", &tasksapi.StartRequest{ContainerID: "good", ExecID: "x"}, &tasksapi.StartResponse{})
	if reason.Of(rpc.FromWire(t.Context(), err)) != reason.PolicyDenied {
		t.Errorf("a FIFO owned by root was opened: %v", err)
	}
	d.Cleat("--namespace", policySpace, "rm", "--force", "good")
}

// Members of the group, limited or not, can work with containers.
func TestPolicy_GroupMembers_CanWork(t *testing.T) {
	t.Parallel()
	d, own := startWithPolicy(t, "")
	free := filepath.Join(filepath.Dir(own), "free")
	harness.Must(t, os.Mkdir(free, 0o700))
	harness.Must(t, os.Chown(free, policyUser+1, policyUser+1))
	archive := filepath.Join(filepath.Dir(own), "busybox.tar")
	d.Cleat("image", "export", "--output", archive, "busybox")
	harness.Must(t, os.Chmod(archive, 0o644))
	cleat := harness.Binary("cleat")
	for uid, dir := range map[uint32]string{policyUser: own, policyUser + 1: free} {
		do := func(want string, args ...string) {
			t.Helper()
			stdout, stderr, code := as(d, uid, dir, cleat, args...)
			if code != 0 || !strings.Contains(stdout, want) {
				t.Errorf("user %d, %q: code %d, %s%s", uid, args, code, stdout, stderr)
			}
		}
		out := filepath.Join(dir, "out.tar")
		do("busybox", "image", "import", archive)
		do("hi", "run", "--rm", "busybox", "echo", "hi")
		do("logged", "run", "--rm", "--log", "daemon", "busybox", "echo", "logged")
		do("one", "run", "--detach", "--name", "one", "busybox", "sh", "-c", "echo first; echo last; exec sleep 1000")
		do("first", "exec", "one", "echo", "first")
		do("uid=0", "exec", "--user", "root", "one", "id")
		d.Eventually("the log is read", func() error {
			if stdout, stderr, _ := as(d, uid, dir, cleat, "logs", "--tail", "1", "one"); stdout != "last\n" {
				return fmt.Errorf("%q, %s", stdout, stderr)
			}
			return nil
		})
		do("one:new", "commit", "one", "one:new")
		do("", "image", "export", "--output", out, "one:new")
		do("one:new", "image", "import", out)
		do("one", "stop", "--time", "0", "one")
		do("one", "rm", "one")
		do("two", "run", "--detach", "--tty", "--interactive", "--name", "two", "busybox", "sleep", "1")
		do("", "attach", "--no-stdin", "two")
		do("two", "rm", "two")
	}
}

// The configuration can permit what the default refuses.
func TestPolicy_AllowsConfiguredExceptions(t *testing.T) {
	t.Parallel()
	shared, err := os.MkdirTemp("/root", "cleat-it")
	harness.Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(shared) })
	harness.Must(t, os.WriteFile(filepath.Join(shared, "file"), []byte("shared\n"), 0o644))
	d, own := startWithPolicy(t, fmt.Sprintf("[policy.%d]\nmounts = [%q]\nflags = [\"host-network\", \"capabilities\"]\n", policyUser, shared))
	archive := filepath.Join(filepath.Dir(own), "busybox.tar")
	d.Cleat("image", "export", "--output", archive, "busybox")
	d.Cleat("--namespace", policySpace, "image", "import", archive)
	cleat := harness.Binary("cleat")
	for want, args := range map[string][]string{
		"shared": {"--volume", shared + ":/x:ro", "busybox", "cat", "/x/file"},
		"added":  {"--cap-add", "SYS_ADMIN", "busybox", "echo", "added"},
	} {
		if stdout, stderr, code := as(d, policyUser, own, cleat, append([]string{"run", "--rm"}, args...)...); code != 0 || strings.TrimSpace(stdout) != want {
			t.Errorf("%q: code %d, %s%s", args, code, stdout, stderr)
		}
	}
	for _, args := range [][]string{{"--volume", shared + ":/x"}, {"--volume", "/etc:/x:ro"}, {"--privileged"}} {
		args = append(append([]string{"run", "--rm"}, args...), "busybox", "true")
		_, stderr, code := as(d, policyUser, own, cleat, args...)
		harness.CheckHint(t, fmt.Sprintf("%q", args), stderr, code, 125, "docs/security.md")
	}
}

// A client of containerd's API works with a limited user's rights: it prepares a snapshot, uses the mounts of the
// snapshot as the root file system, and sends a spec without a seccomp profile.
func TestPolicy_APIClients_CanWork(t *testing.T) {
	t.Parallel()
	d, own := startWithPolicy(t, "")
	archive := filepath.Join(filepath.Dir(own), "busybox.tar")
	d.Cleat("image", "export", "--output", archive, "busybox")
	d.Cleat("--namespace", policySpace, "image", "import", archive)
	details, err := fixture.Client(d).Inspect(t.Context(), "busybox", "")
	harness.Must(t, err)
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	harness.Must(t, json.Unmarshal(details.Config, &config))
	const snapshots = "containerd.services.snapshots.v1.Snapshots"
	for transport, call := range callers(d) {
		id := "by-" + strings.ToLower(transport)
		out := filepath.Join(own, id)
		harness.Must(t, unix.Mkfifo(out, 0o600))
		harness.Must(t, os.Chown(out, policyUser, policyUser))
		read, err := os.OpenFile(out, os.O_RDWR|unix.O_NONBLOCK, 0)
		harness.Must(t, err)
		var prepared snapshotsapi.PrepareSnapshotResponse
		harness.Must(t, call(snapshots, "Prepare", &snapshotsapi.PrepareSnapshotRequest{
			Snapshotter: "overlayfs", Key: id, Parent: config.RootFS.DiffIDs[0],
			Labels: map[string]string{"containerd.io/gc.root": "until the container refers to it"},
		}, &prepared))
		without := specOf(t, func(m map[string]any) {
			delete(m["linux"].(map[string]any), "seccomp")
			m["process"].(map[string]any)["args"] = []string{"sh", "-c", "while read name value; do case $name in Seccomp:) echo $value;; esac; done < /proc/self/status"}
		})
		harness.Must(t, call(containersService, "Create", &containersapi.CreateContainerRequest{Container: &containersapi.Container{
			ID: id, Spec: without, Snapshotter: "overlayfs", SnapshotKey: id,
			Runtime: &containersapi.Container_Runtime{Name: "io.containerd.runc.v2"},
		}}, &containersapi.CreateContainerResponse{}))
		harness.Must(t, call(tasksService, "Create", &tasksapi.CreateTaskRequest{ContainerID: id, Rootfs: prepared.Mounts, Stdout: out}, &tasksapi.CreateTaskResponse{}))
		harness.Must(t, call(tasksService, "Start", &tasksapi.StartRequest{ContainerID: id}, &tasksapi.StartResponse{}))
		var exit tasksapi.WaitResponse
		harness.Must(t, call(tasksService, "Wait", &tasksapi.WaitRequest{ContainerID: id}, &exit))
		buf := make([]byte, 100)
		n, err := read.Read(buf)
		if exit.ExitStatus != 0 || err != nil || strings.TrimSpace(string(buf[:n])) != "2" {
			t.Errorf("%s: code %d, %q, %v", transport, exit.ExitStatus, buf[:n], err)
		}
		harness.Must(t, read.Close())
		harness.Must(t, call(tasksService, "Delete", &tasksapi.DeleteTaskRequest{ContainerID: id}, &tasksapi.DeleteResponse{}))
		harness.Must(t, call(containersService, "Delete", &containersapi.DeleteContainerRequest{ID: id}, &emptypb.Empty{}))
	}
}
