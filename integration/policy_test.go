package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	mountsapi "github.com/containerd/containerd/api/services/mounts/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	sandboxapi "github.com/containerd/containerd/api/services/sandbox/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	apitypes "github.com/containerd/containerd/api/types"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/client/spec"
	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/runcopts"
	"github.com/cleatproject/cleat/proto/types"
)

const (
	policyUser  = 12345
	policyGroup = 23456
	policySpace = "mine"
)

// startWithPolicy starts a daemon in which policyUser is limited to policySpace, and returns it with the user's own
// directory.
func startWithPolicy(t *testing.T, policy string) (d *Daemon, own string) {
	t.Helper()
	base, err := os.MkdirTemp("", "cleat-it")
	must(t, err)
	must(t, os.Chmod(base, 0o711))
	must(t, os.Chmod(binaries, 0o711))
	own = filepath.Join(base, "own")
	must(t, os.Mkdir(own, 0o700))
	must(t, os.Chown(own, policyUser, policyUser))
	config := filepath.Join(base, "config.toml")
	must(t, os.WriteFile(config, fmt.Appendf(nil, "version = 1\ngroup = %d\n[namespace_access]\n%d = [%q]\n%s",
		policyGroup, policyUser, policySpace, policy), 0o600))
	d = StartAt(t, base, "--config", config)
	d.Busybox()
	return d, own
}

// as runs a program as a user of the group.
func (d *Daemon) as(uid uint32, own, name string, args ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(d.t.Context(), name, args...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "CLEAT_ADDRESS=" + d.Address, "CONTAINERD_ADDRESS=" + d.Address,
		"XDG_RUNTIME_DIR=" + own, "CLEAT_NAMESPACE=" + policySpace, "CONTAINERD_NAMESPACE=" + policySpace,
	}
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &errs, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{policyGroup}}}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// dialAs connects to a socket as policyUser: the kernel notes the effective ids of the connecting thread.
func dialAs(ctx context.Context, path string) (net.Conn, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const keep = ^uintptr(0)
	set := func(call uintptr, id uintptr) error {
		if _, _, errno := unix.RawSyscall(call, keep, id, keep); errno != 0 {
			return errno
		}
		return nil
	}
	if err := errors.Join(set(unix.SYS_SETRESGID, policyGroup), set(unix.SYS_SETRESUID, policyUser)); err != nil {
		return nil, err
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if back := errors.Join(set(unix.SYS_SETRESUID, 0), set(unix.SYS_SETRESGID, 0)); back != nil {
		panic(back) // the thread would go on as somebody else
	}
	return conn, err
}

// caller makes a call of the containerd API as policyUser.
type caller func(service, method string, req, resp proto.Message) error

// callers returns one for each transport.
func (d *Daemon) callers() map[string]caller {
	d.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+d.Address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(dialAs))
	must(d.t, err)
	d.t.Cleanup(func() { _ = conn.Close() })
	raw, err := dialAs(d.t.Context(), d.Address+".ttrpc")
	must(d.t, err)
	client := ttrpc.NewClient(raw)
	d.t.Cleanup(func() { _ = client.Close() })
	return map[string]caller{
		"gRPC": func(service, method string, req, resp proto.Message) error {
			ctx := metadata.AppendToOutgoingContext(d.t.Context(), "containerd-namespace", policySpace)
			return conn.Invoke(ctx, "/"+service+"/"+method, req, resp)
		},
		"ttrpc": func(service, method string, req, resp proto.Message) error {
			ctx := ttrpc.WithMetadata(d.t.Context(), ttrpc.MD{"containerd-namespace-ttrpc": {policySpace}})
			return client.Call(ctx, service, method, req, resp)
		},
	}
}

// attempt is a request that would make its user root on the host.
type attempt struct {
	what            string
	service, method string
	req, resp       proto.Message
	// refused begins the refusal.
	refused string
}

const (
	tasksService      = "containerd.services.tasks.v1.Tasks"
	containersService = "containerd.services.containers.v1.Containers"
)

// specOf is the spec of an ordinary container with what change does to its JSON.
func specOf(t *testing.T, change func(map[string]any)) *anypb.Any {
	t.Helper()
	s, err := spec.Generate(spec.Image{}, spec.Options{Args: []string{"sleep", "1000"}})
	must(t, err)
	raw, err := json.Marshal(s)
	must(t, err)
	m := make(map[string]any)
	must(t, json.Unmarshal(raw, &m))
	if change != nil {
		change(m)
	}
	raw, err = json.Marshal(m)
	must(t, err)
	return &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", Value: raw}
}

func runcOptions(t *testing.T, o *runcopts.Options) *anypb.Any {
	t.Helper()
	raw, err := rpc.Marshal(o)
	must(t, err)
	return &anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: raw}
}

func containerAttempts(t *testing.T) []attempt {
	create := func(what, refused string, c *containersapi.Container) attempt {
		c.ID = "evil"
		if c.Runtime == nil {
			c.Runtime = &containersapi.Container_Runtime{Name: "io.containerd.runc.v2"}
		}
		if c.Spec == nil {
			c.Spec = specOf(t, nil)
		}
		return attempt{what, containersService, "Create", &containersapi.CreateContainerRequest{Container: c}, &containersapi.CreateContainerResponse{}, refused}
	}
	hooked := specOf(t, func(m map[string]any) {
		m["hooks"] = map[string]any{"prestart": []any{map[string]any{"path": "/bin/sh"}}}
	})
	return []attempt{
		create("a hook", "hooks.prestart", &containersapi.Container{Spec: hooked}),
		create("the host's root", "source", &containersapi.Container{Spec: specOf(t, func(m map[string]any) {
			m["root"] = map[string]any{"path": "/"}
		})}),
		create("annotations", "annotations", &containersapi.Container{Spec: specOf(t, func(m map[string]any) {
			m["annotations"] = map[string]any{"org.criu.config": "/tmp/x"}
		})}),
		create("a runtime by path", "runtime", &containersapi.Container{Runtime: &containersapi.Container_Runtime{Name: "/tmp/evil"}}),
		create("an OCI runtime by path", "options.binary_name", &containersapi.Container{Runtime: &containersapi.Container_Runtime{
			Name: "io.containerd.runc.v2", Options: runcOptions(t, &runcopts.Options{BinaryName: "/tmp/evil"}),
		}}),
		create("a logger at restart", "labels", &containersapi.Container{Labels: map[string]string{"containerd.io/restart.loguri": "binary:///bin/sh"}}),
		create("the daemon's own record", "container.extensions", &containersapi.Container{
			Extensions: map[string]*anypb.Any{"cleat.v1.RunRecord": {Value: []byte(`{"logPath":"/etc/shadow"}`)}},
		}),
		create("a sandbox", "container.sandbox", &containersapi.Container{Sandbox: "x"}),
		{
			"an update of the spec", containersService, "Update",
			&containersapi.UpdateContainerRequest{Container: &containersapi.Container{ID: "good", Spec: hooked}},
			&containersapi.UpdateContainerResponse{}, "hooks.prestart",
		},
	}
}

func taskAttempts(t *testing.T, own string) []attempt {
	create := func(what, refused string, r *tasksapi.CreateTaskRequest) attempt {
		r.ContainerID = "good"
		return attempt{what, tasksService, "Create", r, &tasksapi.CreateTaskResponse{}, refused}
	}
	run := func(what, refused string, r *tasksapi.ExecProcessRequest) attempt {
		r.ContainerID, r.ExecID = "good", "x"
		return attempt{what, tasksService, "Exec", r, &emptypb.Empty{}, refused}
	}
	process := &anypb.Any{Value: []byte(`{"args":["sh"],"cwd":"/","capabilities":{"effective":["CAP_SYS_ADMIN"]}}`)}
	return []attempt{
		create("the host's files as root", "rootfs", &tasksapi.CreateTaskRequest{
			Rootfs: []*apitypes.Mount{{Type: "bind", Source: "/", Options: []string{"rbind"}}},
		}),
		create("stdin of another", "stdin", &tasksapi.CreateTaskRequest{Stdin: "/etc/shadow"}),
		create("a log file", "stdout", &tasksapi.CreateTaskRequest{Stdout: "file:///root/x"}),
		create("a logger", "stderr", &tasksapi.CreateTaskRequest{Stderr: "binary:///bin/sh"}),
		create("a file of its own", "stdout", &tasksapi.CreateTaskRequest{Stdout: filepath.Join(own, "file")}),
		create("a checkpoint", "checkpoint", &tasksapi.CreateTaskRequest{Checkpoint: &apitypes.Descriptor{Digest: "sha256:x"}}),
		create("a shim of its own", "task_api_address", &tasksapi.CreateTaskRequest{TaskApiAddress: "unix:///tmp/x"}),
		create("a runtime by path", "runtime", &tasksapi.CreateTaskRequest{RuntimePath: "/tmp/evil"}),
		create("options", "options.root", &tasksapi.CreateTaskRequest{Options: runcOptions(t, &runcopts.Options{Root: "/x"})}),
		{"a task of root's container", tasksService, "Create", &tasksapi.CreateTaskRequest{ContainerID: "roots"}, &tasksapi.CreateTaskResponse{}, "process.capabilities"},
		{"a process in root's container", tasksService, "Exec", &tasksapi.ExecProcessRequest{ContainerID: "roots", ExecID: "x"}, &emptypb.Empty{}, "process.capabilities"},
		run("capabilities", "process.capabilities.effective", &tasksapi.ExecProcessRequest{Spec: process}),
		run("a log of an exec", "stdout", &tasksapi.ExecProcessRequest{Stdout: "binary:///bin/sh"}),
		run("stdin of an exec", "stdin", &tasksapi.ExecProcessRequest{Stdin: "/root/x"}),
		run("stderr of an exec", "stderr", &tasksapi.ExecProcessRequest{Stderr: "file:///root/x"}),
		{"devices", tasksService, "Update", &tasksapi.UpdateTaskRequest{
			ContainerID: "good", Resources: &anypb.Any{Value: []byte(`{"devices":[{"allow":true,"access":"rwm"}]}`)},
		}, &emptypb.Empty{}, "linux.resources.devices"},
		{"another cgroup", tasksService, "Update", &tasksapi.UpdateTaskRequest{
			ContainerID: "good", Resources: &anypb.Any{Value: []byte(`{"unified":{"cgroup.procs":"1"}}`)},
		}, &emptypb.Empty{}, "linux.resources.unified"},
		{"annotations of an update", tasksService, "Update", &tasksapi.UpdateTaskRequest{
			ContainerID: "good", Annotations: map[string]string{"a": "b"},
		}, &emptypb.Empty{}, "annotations"},
		{"a checkpoint to a path", tasksService, "Checkpoint", &tasksapi.CheckpointTaskRequest{ContainerID: "good"}, &tasksapi.CheckpointTaskResponse{}, "/" + tasksService},
	}
}

func otherAttempts(t *testing.T) []attempt {
	host := []*apitypes.Mount{{Type: "bind", Source: "/etc", Options: []string{"rbind"}}}
	toAny := func(m proto.Message) *anypb.Any {
		a, err := anypb.New(m)
		must(t, err)
		a.TypeUrl = strings.TrimPrefix(a.TypeUrl, "type.googleapis.com/")
		return a
	}
	archive := func(path string) *anypb.Any {
		raw, err := rpc.Marshal(&cleatapi.ArchiveFile{Path: path})
		must(t, err)
		return &anypb.Any{TypeUrl: cleatapi.ArchiveFileType, Value: raw}
	}
	const transfers, diffs = "containerd.services.transfer.v1.Transfer", "containerd.services.diff.v1.Diff"
	const mounts, sandboxes = "containerd.services.mounts.v1.Mounts", "containerd.services.sandbox.v1.Controller"
	return []attempt{
		{"apply to a host's directory", diffs, "Apply", &diffapi.ApplyRequest{Mounts: host}, &diffapi.ApplyResponse{}, "/" + diffs},
		{"diff of a host's directory", diffs, "Diff", &diffapi.DiffRequest{Left: host, Right: host}, &diffapi.DiffResponse{}, "/" + diffs},
		{"mounts", mounts, "Activate", &mountsapi.ActivateRequest{Name: "x", Mounts: host}, &mountsapi.ActivateResponse{}, "/" + mounts},
		{"a sandbox", sandboxes, "Create", &sandboxapi.ControllerCreateRequest{SandboxID: "x", Rootfs: host}, &sandboxapi.ControllerCreateResponse{}, "/" + sandboxes},
		{"events", "containerd.services.events.v1.Events", "Publish", &eventsapi.PublishRequest{Topic: "/tasks/exit"}, &emptypb.Empty{}, "/containerd.services.events"},
		{"forwarded events", "containerd.services.events.v1.Events", "Forward", &eventsapi.ForwardRequest{}, &emptypb.Empty{}, "/containerd.services.events"},
		{"a shim to describe", "containerd.services.introspection.v1.Introspection", "PluginInfo", &introspectionapi.PluginInfoRequest{
			Type: "io.containerd.runtime.v2", ID: "task", Options: &anypb.Any{},
		}, &introspectionapi.PluginInfoResponse{}, "options"},
		{"a default runtime", "containerd.services.namespaces.v1.Namespaces", "Update", &namespacesapi.UpdateNamespaceRequest{
			Namespace: &namespacesapi.Namespace{Name: policySpace, Labels: map[string]string{"containerd.io/defaults/runtime": "/tmp/evil"}},
		}, &namespacesapi.UpdateNamespaceResponse{}, "labels"},
		{"labels of a snapshot", "containerd.services.snapshots.v1.Snapshots", "Prepare", &snapshotsapi.PrepareSnapshotRequest{
			Snapshotter: "overlayfs", Key: "x", Labels: map[string]string{"cleat.io/mount": "/etc"},
		}, &snapshotsapi.PrepareSnapshotResponse{}, "labels"},
		{"a clean-up", "containerd.services.snapshots.v1.Snapshots", "Cleanup", &snapshotsapi.CleanupRequest{}, &emptypb.Empty{}, "/containerd.services.snapshots"},
		{"a configuration of registries", transfers, "Transfer", &transferapi.TransferRequest{
			Source:      toAny(&transfertypes.OCIRegistry{Reference: "127.0.0.1:1/a:b", Resolver: &transfertypes.RegistryResolver{HostDir: "/root"}}),
			Destination: toAny(&transfertypes.ImageStore{Name: "x"}),
		}, &emptypb.Empty{}, "registry.resolver.host_dir"},
		{"an archive of the host", transfers, "Transfer", &transferapi.TransferRequest{
			Source: archive("/etc/shadow"), Destination: toAny(&transfertypes.ImageStore{Name: "x"}),
		}, &emptypb.Empty{}, "open archive /etc/shadow: not a FIFO"},
		{"an archive that does not exist", transfers, "Transfer", &transferapi.TransferRequest{
			Source: archive("/root/no/such"), Destination: toAny(&transfertypes.ImageStore{Name: "x"}),
		}, &emptypb.Empty{}, "open archive /root/no/such: not a FIFO"},
		{"an export over a file", transfers, "Transfer", &transferapi.TransferRequest{
			Source: toAny(&transfertypes.ImageStore{Name: "docker.io/library/busybox:latest"}), Destination: archive("/etc/hostname"),
		}, &emptypb.Empty{}, "open archive /etc/hostname: not a FIFO"},
	}
}

// Each request field that names a path of the host or a privilege is refused to a user with the default policy, on
// both transports.
func TestPolicy_RefusesEveryWayToRoot(t *testing.T) {
	d, own := startWithPolicy(t, "")
	must(t, os.WriteFile(filepath.Join(own, "file"), nil, 0o600))
	must(t, os.Chown(filepath.Join(own, "file"), policyUser, policyUser))
	archive := filepath.Join(filepath.Dir(own), "busybox.tar")
	d.Cleat("image", "export", "--output", archive, "busybox")
	d.Cleat("--namespace", policySpace, "image", "import", archive)
	d.Cleat("--namespace", policySpace, "run", "--detach", "--name", "good", "busybox", "sleep", "1000")
	d.Cleat("--namespace", policySpace, "run", "--detach", "--privileged", "--name", "roots", "busybox", "sleep", "1000")
	for transport, call := range d.callers() {
		for _, a := range append(append(containerAttempts(t), taskAttempts(t, own)...), otherAttempts(t)...) {
			err := call(a.service, a.method, proto.Clone(a.req), a.resp)
			st := status.Convert(err)
			if st.Code() != codes.PermissionDenied || !strings.HasPrefix(st.Message(), a.refused) {
				t.Errorf("%s, %s: %v, want a refusal of %s", transport, a.what, err, a.refused)
			}
			if r := reason.Of(rpc.FromWire(t.Context(), err)); r != reason.PolicyDenied {
				t.Errorf("%s, %s: reason %q", transport, a.what, r)
			}
		}
	}
	d.nativeAttempts()
	d.Cleat("--namespace", policySpace, "rm", "--force", "good", "roots")
}

// nativeAttempts makes those that only cleat's own services offer.
func (d *Daemon) nativeAttempts() {
	t := d.t
	t.Helper()
	raw, err := dialAs(t.Context(), d.Address+".ttrpc")
	must(t, err)
	client := ttrpc.NewClient(raw)
	defer func() { _ = client.Close() }()
	ctx := ttrpc.WithMetadata(t.Context(), ttrpc.MD{"containerd-namespace-ttrpc": {policySpace}, "cleat-stdio-owner": {"0"}})
	plain := specOf(t, nil).Value
	run := func(change func(*cleatapi.RunRequest)) error {
		r := &cleatapi.RunRequest{Id: "evil", Image: "busybox", Spec: plain}
		change(r)
		_, err := rpc.Call[cleatapi.RunResponse](ctx, client, cleatapi.ContainersService, "Run", r)
		return err
	}
	for refused, err := range map[string]error{
		"source": run(func(r *cleatapi.RunRequest) { r.Image, r.Rootfs = "", "/" }),
		"hooks.poststop": run(func(r *cleatapi.RunRequest) {
			r.Spec = specOf(t, func(m map[string]any) {
				m["hooks"] = map[string]any{"poststop": []any{map[string]any{"path": "/bin/sh"}}}
			}).Value
		}),
		"runtime": run(func(r *cleatapi.RunRequest) { r.Runtime = "/tmp/evil" }),
		"options.shim_cgroup": run(func(r *cleatapi.RunRequest) {
			o := runcOptions(t, &runcopts.Options{ShimCgroup: "/"})
			r.Options = &types.Any{TypeUrl: o.TypeUrl, Value: o.Value}
		}),
		"stdin":  run(func(r *cleatapi.RunRequest) { r.Stdin = "/etc/shadow" }),
		"stdout": run(func(r *cleatapi.RunRequest) { r.Stdout = "binary:///bin/sh" }),
		"stderr": run(func(r *cleatapi.RunRequest) { r.Stderr = "file:///root/x" }),
		"labels": run(func(r *cleatapi.RunRequest) { r.Labels = map[string]string{"containerd.io/restart.loguri": "x"} }),
		"linux.seccomp": run(func(r *cleatapi.RunRequest) {
			r.Spec = specOf(t, func(m map[string]any) { delete(m["linux"].(map[string]any), "seccomp") }).Value
		}),
		"/cleat.v1.Images": func() error {
			_, err := rpc.Call[cleatapi.MountImageResponse](ctx, client, cleatapi.ImagesService, "Mount", &cleatapi.MountImageRequest{Image: "busybox", Target: "/etc"})
			return err
		}(),
		"/cleat.v1.GC": func() error {
			_, err := rpc.Call[cleatapi.CollectResponse](ctx, client, cleatapi.GCService, "Collect", &cleatapi.CollectRequest{})
			return err
		}(),
	} {
		if err == nil || reason.Of(err) != reason.PolicyDenied || !strings.HasPrefix(err.Error(), refused) {
			t.Errorf("native, %s: %v", refused, err)
		}
	}
}

// The shim checks the FIFO that it has opened: a path whose FIFO is exchanged after the daemon's look at it leads
// nowhere else.
func TestPolicy_ExchangedFIFOIsRefused(t *testing.T) {
	d, own := startWithPolicy(t, "")
	archive := filepath.Join(filepath.Dir(own), "busybox.tar")
	d.Cleat("image", "export", "--output", archive, "busybox")
	d.Cleat("--namespace", policySpace, "image", "import", archive)
	d.Cleat("--namespace", policySpace, "run", "--detach", "--name", "good", "busybox", "sleep", "1000")
	call := d.callers()["gRPC"]
	path := filepath.Join(own, "out")
	must(t, unix.Mkfifo(path, 0o600))
	must(t, os.Chown(path, policyUser, policyUser))
	must(t, call(tasksService, "Exec", &tasksapi.ExecProcessRequest{
		ContainerID: "good", ExecID: "x", Stdout: path, Spec: &anypb.Any{Value: []byte(`{"args":["id"],"cwd":"/"}`)},
	}, &emptypb.Empty{}))
	must(t, os.Remove(path))
	must(t, unix.Mkfifo(path, 0o600)) // root's
	err := call(tasksService, "Start", &tasksapi.StartRequest{ContainerID: "good", ExecID: "x"}, &tasksapi.StartResponse{})
	if reason.Of(rpc.FromWire(t.Context(), err)) != reason.PolicyDenied {
		t.Errorf("a FIFO of root was opened: %v", err)
	}
	d.Cleat("--namespace", policySpace, "rm", "--force", "good")
}

// What people do with containers works for members of the group, limited or not.
func TestMembersOfTheGroupCanWork(t *testing.T) {
	d, own := startWithPolicy(t, "")
	free := filepath.Join(filepath.Dir(own), "free")
	must(t, os.Mkdir(free, 0o700))
	must(t, os.Chown(free, policyUser+1, policyUser+1))
	archive := filepath.Join(filepath.Dir(own), "busybox.tar")
	d.Cleat("image", "export", "--output", archive, "busybox")
	must(t, os.Chmod(archive, 0o644))
	cleat := filepath.Join(binaries, "cleat")
	for uid, dir := range map[uint32]string{policyUser: own, policyUser + 1: free} {
		do := func(want string, args ...string) {
			t.Helper()
			stdout, stderr, code := d.as(uid, dir, cleat, args...)
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
			if stdout, stderr, _ := d.as(uid, dir, cleat, "logs", "--tail", "1", "one"); stdout != "last\n" {
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

// The configuration can allow what the default refuses.
func TestPolicy_AllowsWhatIsConfigured(t *testing.T) {
	shared, err := os.MkdirTemp("/root", "cleat-it")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(shared) })
	must(t, os.WriteFile(filepath.Join(shared, "file"), []byte("shared\n"), 0o644))
	d, own := startWithPolicy(t, fmt.Sprintf("[policy.%d]\nmounts = [%q]\nflags = [\"host-network\", \"capabilities\"]\n", policyUser, shared))
	archive := filepath.Join(filepath.Dir(own), "busybox.tar")
	d.Cleat("image", "export", "--output", archive, "busybox")
	d.Cleat("--namespace", policySpace, "image", "import", archive)
	cleat := filepath.Join(binaries, "cleat")
	for want, args := range map[string][]string{
		"shared": {"--volume", shared + ":/x:ro", "busybox", "cat", "/x/file"},
		"added":  {"--cap-add", "SYS_ADMIN", "busybox", "echo", "added"},
	} {
		if stdout, stderr, code := d.as(policyUser, own, cleat, append([]string{"run", "--rm"}, args...)...); code != 0 || strings.TrimSpace(stdout) != want {
			t.Errorf("%q: code %d, %s%s", args, code, stdout, stderr)
		}
	}
	for _, args := range [][]string{{"--volume", shared + ":/x"}, {"--volume", "/etc:/x:ro"}, {"--privileged"}} {
		args = append(append([]string{"run", "--rm"}, args...), "busybox", "true")
		_, stderr, code := d.as(policyUser, own, cleat, args...)
		checkHint(t, fmt.Sprintf("%q", args), stderr, code, 125, "docs/security.md")
	}
}

// A client of containerd's API works with a limited user's rights: it prepares a snapshot, gives its mounts back as
// the root file system, and sends a spec without a seccomp profile.
func TestPolicy_ClientsOfTheAPICanWork(t *testing.T) {
	d, own := startWithPolicy(t, "")
	archive := filepath.Join(filepath.Dir(own), "busybox.tar")
	d.Cleat("image", "export", "--output", archive, "busybox")
	d.Cleat("--namespace", policySpace, "image", "import", archive)
	details, err := d.Client().Inspect(t.Context(), "busybox", "")
	must(t, err)
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	must(t, json.Unmarshal(details.Config, &config))
	const snapshots = "containerd.services.snapshots.v1.Snapshots"
	for transport, call := range d.callers() { // the snapshots go with the next collection
		id := "by-" + strings.ToLower(transport)
		out := filepath.Join(own, id)
		must(t, unix.Mkfifo(out, 0o600))
		must(t, os.Chown(out, policyUser, policyUser))
		read, err := os.OpenFile(out, os.O_RDWR|unix.O_NONBLOCK, 0)
		must(t, err)
		var prepared snapshotsapi.PrepareSnapshotResponse
		must(t, call(snapshots, "Prepare", &snapshotsapi.PrepareSnapshotRequest{
			Snapshotter: "overlayfs", Key: id, Parent: config.RootFS.DiffIDs[0],
		}, &prepared))
		without := specOf(t, func(m map[string]any) {
			delete(m["linux"].(map[string]any), "seccomp")
			m["process"].(map[string]any)["args"] = []string{"sh", "-c", "while read name value; do case $name in Seccomp:) echo $value;; esac; done < /proc/self/status"}
		})
		must(t, call(containersService, "Create", &containersapi.CreateContainerRequest{Container: &containersapi.Container{
			ID: id, Spec: without, Snapshotter: "overlayfs", SnapshotKey: id,
			Runtime: &containersapi.Container_Runtime{Name: "io.containerd.runc.v2"},
		}}, &containersapi.CreateContainerResponse{}))
		must(t, call(tasksService, "Create", &tasksapi.CreateTaskRequest{ContainerID: id, Rootfs: prepared.Mounts, Stdout: out}, &tasksapi.CreateTaskResponse{}))
		must(t, call(tasksService, "Start", &tasksapi.StartRequest{ContainerID: id}, &tasksapi.StartResponse{}))
		var exit tasksapi.WaitResponse
		must(t, call(tasksService, "Wait", &tasksapi.WaitRequest{ContainerID: id}, &exit))
		buf := make([]byte, 100)
		n, err := read.Read(buf)
		if exit.ExitStatus != 0 || err != nil || strings.TrimSpace(string(buf[:n])) != "2" {
			t.Errorf("%s: code %d, %q, %v", transport, exit.ExitStatus, buf[:n], err)
		}
		must(t, read.Close())
		must(t, call(tasksService, "Delete", &tasksapi.DeleteTaskRequest{ContainerID: id}, &tasksapi.DeleteResponse{}))
		must(t, call(containersService, "Delete", &containersapi.DeleteContainerRequest{ID: id}, &emptypb.Empty{}))
	}
}
