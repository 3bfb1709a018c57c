package shim_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/cleatproject/cleat/fifo"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/runcopts"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

const namespace = "test"

// binary builds the shim once for the package, with the race detector if the tests have it;
// product builds it as it is shipped.
var (
	binary  = sync.OnceValues(func() (string, error) { return build(raceEnabled) })
	product = sync.OnceValues(func() (string, error) { return build(false) })
)

func build(race bool) (string, error) {
	dir, err := os.MkdirTemp("", "cleat-shim-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "containerd-shim-cleat-v2")
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", path, "../cmd/containerd-shim-cleat-v2")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if race {
		cmd = exec.Command("go", "build", "-race", "-o", path, "../cmd/containerd-shim-cleat-v2")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build shim: %w: %s", err, out)
	}
	return path, nil
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, f := range []func() (string, error){binary, product} {
		if path, err := f(); err == nil {
			_ = os.RemoveAll(filepath.Dir(path))
		}
	}
	// The runtime removes the containers' cgroups, not their parent.
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/cleat-shim-test")
	for _, g := range groups {
		_ = os.Remove(g)
	}
	_ = os.Remove("/sys/fs/cgroup/cleat-shim-test")
	os.Exit(code)
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// shimUnder is one running shim with one bundle.
type shimUnder struct {
	t       *testing.T
	daemon  *daemon
	id      string
	bundle  string
	socket  string
	service string
	client  *ttrpc.Client
	cmd     *exec.Cmd
	stderr  *bytes.Buffer
	exited  chan error
	path    string
	started int // how many shims were started for the bundle
}

// launch creates a bundle and starts a shim as cleatd does.
func launch(t *testing.T, d *daemon, id string, edit func(spec map[string]any)) *shimUnder {
	t.Helper()
	return launchBuild(t, d, id, edit, binary)
}

func launchBuild(t *testing.T, d *daemon, id string, edit func(spec map[string]any), build func() (string, error)) *shimUnder {
	t.Helper()
	s := &shimUnder{t: t, daemon: d, id: id, service: task.V3Service, exited: make(chan error, 1)}
	s.bundle = filepath.Join(d.state, "io.containerd.runtime.v2.task", namespace, id)
	makeBundle(t, s.bundle, edit)
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	s.path = path
	s.serve()
	t.Cleanup(s.end)
	return s
}

// serve starts a shim for the bundle and connects to it.
func (s *shimUnder) serve(env ...string) {
	t, d := s.t, s.daemon
	t.Helper()
	s.started++
	s.socket = filepath.Join(d.state, s.id+"-"+strconv.Itoa(s.started)+".sock")
	l, err := rpc.Listen(s.socket, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	s.stderr = &bytes.Buffer{}
	s.cmd = exec.Command(s.path, "-namespace", namespace, "-address", filepath.Join(d.state, "d.sock"),
		"-publish-binary", "/nonexistent", "-id", s.id, "-debug", "serve")
	s.cmd.Dir = s.bundle
	s.cmd.Env = append(os.Environ(), "TTRPC_ADDRESS="+d.socket, "CLEAT_LISTEN_FD=3", "GOMAXPROCS=1")
	s.cmd.Env = append(s.cmd.Env, env...)
	s.cmd.ExtraFiles = []*os.File{fd}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	s.cmd.Stderr = s.stderr
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = fd.Close()
	_ = l.Close()
	go func(cmd *exec.Cmd) { s.exited <- cmd.Wait() }(s.cmd)
	s.connect()
}

// kill9 kills the shim and waits for its end.
func (s *shimUnder) kill9() {
	s.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Logf("shim killed: %v", <-s.exited)
	_ = s.client.Close()
	if err := os.Remove(s.socket); err != nil {
		s.t.Fatal(err)
	}
	if strings.Contains(s.stderr.String(), "DATA RACE") {
		s.t.Errorf("shim's log:\n%s", s.stderr.String())
	}
}

// adopt starts another shim, which adopts the container.
func (s *shimUnder) adopt() {
	s.t.Helper()
	s.serve("CLEAT_ADOPT=1")
}

func (s *shimUnder) connect() {
	s.t.Helper()
	client, err := rpc.Dial(context.Background(), s.socket)
	if err != nil {
		s.t.Fatal(err)
	}
	s.client = client
}

// end removes what the test left, and fails if the shim does not exit by itself then.
func (s *shimUnder) end() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	defer func() {
		if s.stderr.Len() > 0 && (s.t.Failed() || strings.Contains(s.stderr.String(), "DATA RACE")) {
			s.t.Errorf("shim's log:\n%s", s.stderr.String())
		}
	}()
	select {
	case err := <-s.exited:
		s.t.Logf("shim has exited: %v", err)
		return
	default:
	}
	if _, err := call[task.StateResponse](ctx, s, "State", &task.StateRequest{Id: s.id}); err == nil {
		_, _ = call[types.Empty](ctx, s, "Resume", &task.ResumeRequest{Id: s.id})
		_, _ = call[types.Empty](ctx, s, "Kill", &task.KillRequest{Id: s.id, Signal: 9, All: true})
		_, _ = call[task.WaitResponse](ctx, s, "Wait", &task.WaitRequest{Id: s.id})
		if _, err := call[task.DeleteResponse](ctx, s, "Delete", &task.DeleteRequest{Id: s.id}); err != nil {
			s.t.Errorf("delete at the end: %v", err)
		}
	}
	if _, err := call[types.Empty](ctx, s, "Shutdown", &task.ShutdownRequest{Id: s.id}); err != nil {
		s.t.Errorf("shutdown: %v", err)
	}
	select {
	case err := <-s.exited:
		if err != nil {
			s.t.Errorf("shim: %v", err)
		}
	case <-ctx.Done():
		s.t.Error("shim does not leave")
		_ = s.cmd.Process.Signal(syscall.SIGQUIT)
		s.t.Logf("shim ended: %v; its log:\n%s", <-s.exited, s.stderr.String())
	}
	_ = s.client.Close()
	if _, err := os.Lstat(s.socket); !errors.Is(err, os.ErrNotExist) {
		s.t.Errorf("socket left: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(s.daemon.state, "runc", namespace)); err == nil {
		for _, e := range left {
			if e.Name() == s.id {
				s.t.Errorf("runtime's state of %s left", s.id)
			}
		}
	}
	entries, err := os.ReadDir(s.bundle)
	if err != nil {
		s.t.Error(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			s.t.Errorf("transient file %s left", e.Name())
		}
	}
}

func call[Resp any, P rpc.Pointer[Resp]](ctx context.Context, s *shimUnder, method string, req rpc.Message) (*Resp, error) {
	return rpc.Call[Resp, P](ctx, s.client, s.service, method, req)
}

// must is call that fails the test on an error.
func must[Resp any, P rpc.Pointer[Resp]](ctx context.Context, s *shimUnder, method string, req rpc.Message) *Resp {
	s.t.Helper()
	resp, err := call[Resp, P](ctx, s, method, req)
	if err != nil {
		s.t.Fatalf("%s: %v", method, err)
	}
	return resp
}

func (s *shimUnder) request() *task.CreateTaskRequest {
	return &task.CreateTaskRequest{Id: s.id, Bundle: s.bundle}
}

// fifos creates FIFOs for the stdio and returns their paths.
func (s *shimUnder) fifo(name string) string {
	s.t.Helper()
	path := filepath.Join(s.daemon.state, s.id+"-"+name)
	if err := fifo.Create(path, 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// collect reads a FIFO to its end.
func (s *shimUnder) collect(path string) <-chan string {
	s.t.Helper()
	r, err := fifo.OpenReader(path)
	if err != nil {
		s.t.Fatal(err)
	}
	out := make(chan string, 1)
	go func() {
		defer func() { _ = r.Close() }()
		text, err := io.ReadAll(r)
		if err != nil {
			s.t.Error(err)
		}
		out <- string(text)
	}()
	return out
}

// receive waits for what collect reads.
func receive(ctx context.Context, t *testing.T, c <-chan string) string {
	t.Helper()
	select {
	case text := <-c:
		return text
	case <-ctx.Done():
		t.Fatal("output does not end")
		return ""
	}
}

// process returns an OCI process object for exec.
func processAny(t *testing.T, terminal bool, args ...string) *types.Any {
	t.Helper()
	data, err := json.Marshal(map[string]any{
		"terminal": terminal, "args": args, "cwd": "/", "env": []string{"PATH=/bin"}, "user": map[string]any{"uid": 0, "gid": 0},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &types.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", Value: data}
}

func optionsAny(t *testing.T, o *runcopts.Options) *types.Any {
	t.Helper()
	data, err := rpc.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return &types.Any{TypeUrl: "containerd.runc.v1.Options", Value: data}
}
