package shim_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cleatproject/cleat/proto/bootstrap"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// peer is a containerd of the distribution, unmodified, with directories of its own.
type peer struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
}

func newPeer(t *testing.T) *peer {
	t.Helper()
	dir, err := os.MkdirTemp("", "cp-")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, dir: dir}
	config := "version = 2\nroot = \"" + dir + "/root\"\nstate = \"" + dir + "/state\"\n" +
		"disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n" +
		"[grpc]\naddress = \"" + dir + "/c.sock\"\n"
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.stop(syscall.SIGTERM)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	p.start()
	return p
}

func (p *peer) start() {
	p.t.Helper()
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	p.cmd = exec.Command("containerd", "-c", filepath.Join(p.dir, "config.toml"))
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	eventually(p.t, func() bool { _, _, err := p.ctr("version"); return err == nil })
}

func (p *peer) stop(sig syscall.Signal) {
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(sig)
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

func (p *peer) ctr(args ...string) (out string, code int, err error) {
	cmd := exec.Command("ctr", append([]string{"-a", filepath.Join(p.dir, "c.sock")}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
		err = errors.New(stderr.String())
	}
	return stdout.String(), code, err
}

// Our shim under an unmodified containerd, across the death of the daemon.
func TestUnderContainerd(t *testing.T) {
	p := newPeer(t)
	shim, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(p.dir, "image")
	makeBundle(t, bundle, nil)
	run := func(more ...string) (string, int, error) {
		return p.ctr(append([]string{"run", "--env", "PATH=/bin", "--rootfs", "--runtime", shim}, more...)...)
	}
	rootfs := filepath.Join(bundle, "rootfs")
	// ctr discards the FIFOs that it has not opened, and their content, when it receives the exit.
	eventually(t, func() bool {
		out, _, err := run("--rm", rootfs, "one", "echo", "hello")
		if err != nil {
			t.Fatalf("run: %q, %v", out, err)
		}
		return out == "hello\n"
	})
	if _, code, _ := run("--rm", rootfs, "two", "sh", "-c", "exit 7"); code != 7 {
		t.Errorf("exit %d, want 7", code)
	}
	if _, _, err := run("--detach", rootfs, "three", "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	p.stop(syscall.SIGKILL)
	p.start()
	if out, _, err := p.ctr("task", "list"); err != nil || !strings.Contains(out, "RUNNING") {
		t.Errorf("list after the restart: %q, %v", out, err)
	}
	eventually(t, func() bool {
		out, code, err := p.ctr("task", "exec", "--exec-id", "x", "three", "sh", "-c", "echo in; exit 5")
		if code != 5 {
			t.Fatalf("exec after the restart: %q, %d, %v", out, code, err)
		}
		return out == "in\n"
	})
	for _, verb := range []string{"pause", "resume", "metrics", "ps"} {
		if _, _, err := p.ctr("task", verb, "three"); err != nil {
			t.Errorf("%s: %v", verb, err)
		}
	}
	if _, _, err := p.ctr("task", "kill", "--signal", "9", "three"); err != nil {
		t.Errorf("kill: %v", err)
	}
	eventually(t, func() bool {
		out, _, err := p.ctr("task", "list")
		return err == nil && strings.Contains(out, "STOPPED")
	})
	if _, code, err := p.ctr("task", "delete", "three"); code != 0 && code != 137 {
		t.Errorf("delete: %d, %v", code, err)
	}
	eventually(t, func() bool { // the shims have left, and taken their sockets along
		left, err := os.ReadDir(filepath.Join(p.dir, "s"))
		return err == nil && len(left) == 0
	})
}

// The verb start in both forms, -v and -info; nothing goes to stderr.
func TestPublishedVerbs(t *testing.T) {
	ctx := within(t)
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	params, err := rpc.Marshal(&bootstrap.BootstrapParams{InstanceId: "newer", Namespace: namespace, SocketDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for id, stdin := range map[string][]byte{"older": nil, "newer": params} {
		d := newDaemon(t)
		bundle := filepath.Join(d.state, "io.containerd.runtime.v2.task", namespace, id)
		makeBundle(t, bundle, args("sh", "-c", "exit 6"))
		out := verb(t, bundle, stdin, []string{"TTRPC_ADDRESS=" + d.socket}, path,
			"-namespace", namespace, "-address", filepath.Join(d.state, "d.sock"), "-publish-binary", "/none", "-id", id, "start")
		address := string(out)
		if stdin != nil {
			var r bootstrap.BootstrapResult
			if err := r.Unmarshal(out); err != nil || r.Version != 3 || r.Protocol != "ttrpc" {
				t.Fatalf("answer %+v, %v", r, err)
			}
			address = r.Address
		}
		client, err := rpc.Dial(ctx, address)
		if err != nil {
			t.Fatal(err)
		}
		s := &shimUnder{t: t, daemon: d, id: id, bundle: bundle, client: client, service: task.V2Service}
		s.run(s.request())
		if code := s.wait(); code != 6 {
			t.Errorf("exit %d", code)
		}
		s.remove()
		d.await(ctx, t, "delete")
		if got := d.topics(t); !slices.Equal(got, []string{"create", "start", "exit " + id + " 6", "delete"}) {
			t.Errorf("events %q", got)
		}
		must[types.Empty](ctx, s, "Shutdown", &task.ShutdownRequest{Id: id})
		_ = client.Close()
		eventually(t, func() bool { _, err := rpc.DialSocket(ctx, address); return err != nil })
	}
	var info types.RuntimeInfo
	if err := info.Unmarshal(verb(t, t.TempDir(), nil, nil, path, "-info")); err != nil || info.Name != "io.containerd.cleat.v2" || info.Features == nil {
		t.Errorf("info %+v, %v", info, err)
	}
	if out := verb(t, t.TempDir(), nil, nil, path, "-v"); !strings.Contains(string(out), "Version") {
		t.Errorf("version %q", out)
	}
}

func verb(t *testing.T, dir string, stdin []byte, env []string, path string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(stdin)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil || errs.Len() > 0 {
		t.Fatalf("%q: %v, stderr %q", args, err, errs.String())
	}
	return out.Bytes()
}
