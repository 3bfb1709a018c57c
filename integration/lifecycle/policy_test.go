package lifecycle

import (
	"bytes"
	"context"
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

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/cleatproject/cleat/integration/harness"
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
func startWithPolicy(t *testing.T, policy string) (d *harness.Daemon, own string) {
	t.Helper()
	base, err := os.MkdirTemp("", "cleat-it")
	harness.Must(t, err)
	harness.Must(t, os.Chmod(base, 0o711))
	harness.Must(t, os.Chmod(harness.Binaries(), 0o711))
	own = filepath.Join(base, "own")
	harness.Must(t, os.Mkdir(own, 0o700))
	harness.Must(t, os.Chown(own, policyUser, policyUser))
	config := filepath.Join(base, "config.toml")
	harness.Must(t, os.WriteFile(config, fmt.Appendf(nil, "version = 1\ngroup = %d\n[namespace_access]\n%d = [%q]\n%s",
		policyGroup, policyUser, policySpace, policy), 0o600))
	d = harness.StartAt(t, base, "--config", config)
	d.Busybox()
	return d, own
}

// as runs a program as a user of the group.
func as(d *harness.Daemon, uid uint32, own, name string, args ...string) (stdout, stderr string, code int) {
	d.T.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(d.T.Context(), name, args...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "CLEAT_ADDRESS=" + d.Address, "CONTAINERD_ADDRESS=" + d.Address,
		"XDG_RUNTIME_DIR=" + own, "CLEAT_NAMESPACE=" + policySpace, "CONTAINERD_NAMESPACE=" + policySpace,
	}
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &errs, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{policyGroup}}}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.T.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// dialAs connects to a socket as policyUser: the kernel notes the effective ids of the connecting thread.
func dialAs(_ context.Context, path string) (net.Conn, error) {
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
		panic(back) // the thread would continue with other credentials
	}
	return conn, err
}

// caller calls the containerd API as policyUser.
type caller func(service, method string, req, resp proto.Message) error

// callers returns one for each transport.
func callers(d *harness.Daemon) map[string]caller {
	d.T.Helper()
	conn, err := grpc.NewClient("passthrough:///"+d.Address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(dialAs))
	harness.Must(d.T, err)
	d.T.Cleanup(func() { _ = conn.Close() })
	raw, err := dialAs(d.T.Context(), d.Address+".ttrpc")
	harness.Must(d.T, err)
	client := ttrpc.NewClient(raw)
	d.T.Cleanup(func() { _ = client.Close() })
	return map[string]caller{
		"gRPC": func(service, method string, req, resp proto.Message) error {
			ctx := metadata.AppendToOutgoingContext(d.T.Context(), "containerd-namespace", policySpace)
			return conn.Invoke(ctx, "/"+service+"/"+method, req, resp)
		},
		"ttrpc": func(service, method string, req, resp proto.Message) error {
			ctx := ttrpc.WithMetadata(d.T.Context(), ttrpc.MD{"containerd-namespace-ttrpc": {policySpace}})
			return client.Call(ctx, service, method, req, resp)
		},
	}
}

// Each request field that names a path of the host or a privilege is refused to a user with the default policy, on
// both transports.
func TestPolicy_RefusesEveryPrivilegeOfRoot(t *testing.T) {
	t.Parallel()
	d, own := startWithPolicy(t, "")
	harness.Must(t, os.WriteFile(filepath.Join(own, "file"), nil, 0o600))
	harness.Must(t, os.Chown(filepath.Join(own, "file"), policyUser, policyUser))
	archive := filepath.Join(filepath.Dir(own), "busybox.tar")
	d.Cleat("image", "export", "--output", archive, "busybox")
	d.Cleat("--namespace", policySpace, "image", "import", archive)
	d.Cleat("--namespace", policySpace, "run", "--detach", "--name", "good", "busybox", "sleep", "1000")
	d.Cleat("--namespace", policySpace, "run", "--detach", "--privileged", "--name", "roots", "busybox", "sleep", "1000")
	for transport, call := range callers(d) {
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
	nativeAttempts(d)
	d.Cleat("--namespace", policySpace, "rm", "--force", "good", "roots")
}

// nativeAttempts returns the attempts that only cleat's own services offer.
func nativeAttempts(d *harness.Daemon) {
	t := d.T
	t.Helper()
	raw, err := dialAs(t.Context(), d.Address+".ttrpc")
	harness.Must(t, err)
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
