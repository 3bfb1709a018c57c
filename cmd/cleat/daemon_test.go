package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/ttrpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/client/stdio"
	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/rpc"
)

// pretended is a fake daemon whose processes write a text, copy stdin to stdout, and exit with a status.
type pretended struct {
	address   string
	output    string
	status    uint32
	failRun   error
	beforeRun func()
	afterRun  func()

	mu          sync.Mutex
	runs        []*running
	removals    int
	exec        specs.Process
	execIO      *tasks.ExecProcessRequest
	execDone    chan struct{}
	execDeleted bool
}

// running is a container of the fake daemon.
type running struct {
	request *cleatapi.RunRequest
	spec    specs.Spec
	done    chan struct{}
}

func newDaemon(t *testing.T) *pretended {
	t.Helper()
	d := &pretended{address: filepath.Join(t.TempDir(), "cleat.sock")}
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	server.RegisterService(cleatapi.ContainersService, &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Run": rpc.Unary(d.run), "Wait": rpc.Unary(d.wait), "Remove": rpc.Unary(d.remove), "List": rpc.Unary(d.list),
	}})
	server.RegisterService(cleatapi.ImagesService, &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Inspect": rpc.Unary(d.inspect),
		"List": rpc.Unary(func(context.Context, *cleatapi.ListImagesRequest) (*cleatapi.ListImagesResponse, error) {
			return &cleatapi.ListImagesResponse{Images: []*cleatapi.Image{{Name: "busybox", Digest: "sha256:00", Size_: 1 << 20}}}, nil
		}),
	}})
	server.RegisterService(cleatapi.ShimsService, &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"List": rpc.Unary(func(context.Context, *cleatapi.ListShimsRequest) (*cleatapi.ListShimsResponse, error) {
			return &cleatapi.ListShimsResponse{Shims: []*cleatapi.Shim{{Id: "one", Pid: 5}}}, nil
		}),
	}})
	containers.RegisterTTRPCContainersService(server, recordServer{})
	tasks.RegisterTTRPCTasksService(server, taskServer{d: d})
	l, err := rpc.Listen(d.address+".ttrpc", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(context.Background(), l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return d
}

func (d *pretended) env() map[string]string { return map[string]string{"CLEAT_ADDRESS": d.address} }

func (d *pretended) fifoRoot() string { return filepath.Join(filepath.Dir(d.address), "fifo") }

func (d *pretended) collect() error { return stdio.Collect(d.fifoRoot()) }

func (d *pretended) nothingLeft(t *testing.T) {
	t.Helper()
	if left, err := os.ReadDir(d.fifoRoot()); err == nil && len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func (d *pretended) last(t *testing.T) *running {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.runs) == 0 {
		t.Fatal("nothing was run")
	}
	return d.runs[len(d.runs)-1]
}

func (d *pretended) removed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.removals > 0
}

func (d *pretended) run(_ context.Context, r *cleatapi.RunRequest) (*cleatapi.RunResponse, error) {
	if d.beforeRun != nil {
		d.beforeRun()
	}
	if d.failRun != nil {
		return nil, d.failRun
	}
	c := &running{request: r, done: make(chan struct{})}
	if err := json.Unmarshal(r.Spec, &c.spec); err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.runs = append(d.runs, c)
	d.mu.Unlock()
	if err := d.process(r.Stdin, r.Stdout, c.done); err != nil {
		return nil, err
	}
	if d.afterRun != nil {
		d.afterRun()
	}
	return &cleatapi.RunResponse{Id: r.Id, Pid: 1, Cursor: 1}, nil
}

// process opens its FIFOs before it returns, as a shim does; it closes done when the process exits.
func (d *pretended) process(stdin, stdout string, done chan struct{}) error {
	if !strings.HasPrefix(stdout, "/") {
		close(done)
		return nil
	}
	out, err := os.OpenFile(stdout, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var in *os.File
	if stdin != "" {
		if in, err = os.OpenFile(stdin, os.O_RDONLY|syscall.O_NONBLOCK, 0); err != nil {
			return err
		}
	}
	go func() {
		defer close(done)
		_, _ = io.WriteString(out, d.output)
		if in != nil {
			_, _ = io.Copy(out, in)
			_ = in.Close()
		}
		_ = out.Close()
	}()
	return nil
}

func (d *pretended) wait(ctx context.Context, r *cleatapi.WaitRequest) (*cleatapi.WaitResponse, error) {
	if strings.HasPrefix(r.Id, "bbb") || len(r.Id) == 4 {
		return nil, fmt.Errorf("container %s: %w", r.Id, client.ReasonContainerNotFound)
	}
	d.mu.Lock()
	var done chan struct{}
	for _, c := range d.runs {
		if c.request.Id == r.Id {
			done = c.done
		}
	}
	d.mu.Unlock()
	if done != nil {
		select {
		case <-done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &cleatapi.WaitResponse{ExitStatus: d.status}, nil
}

func (d *pretended) remove(_ context.Context, r *cleatapi.RemoveRequest) (*cleatapi.RemoveResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.removals++
	return nil, fmt.Errorf("container %s: %w", r.Id, client.ReasonContainerNotFound)
}

func (d *pretended) list(context.Context, *cleatapi.ListRequest) (*cleatapi.ListResponse, error) {
	return &cleatapi.ListResponse{Containers: []*cleatapi.Container{
		{Id: strings.Repeat("a", 64), Status: "running", Pid: 4}, {Id: "one", Status: "stopped"},
	}}, nil
}

func (d *pretended) inspect(_ context.Context, r *cleatapi.InspectImageRequest) (*cleatapi.InspectImageResponse, error) {
	if r.Platform != "" {
		return nil, fmt.Errorf("image %s: %w", r.Name, client.ReasonImageNotFound)
	}
	return &cleatapi.InspectImageResponse{Config: []byte(`{"config":{"Entrypoint":["/entry"],"Cmd":["cmd"],"User":"www",
		"StopSignal":"SIGQUIT","Labels":{"cleat.io/stop-signal":"evil","x":"y"}}}`)}, nil
}

// recordServer returns the same record for every container.
type recordServer struct {
	containers.TTRPCContainersService
}

func (recordServer) Get(context.Context, *containers.GetContainerRequest) (*containers.GetContainerResponse, error) {
	spec, err := json.Marshal(specs.Spec{Process: &specs.Process{Args: []string{"init"}, Env: []string{"PATH=/bin"}, Cwd: "/"}})
	return &containers.GetContainerResponse{Container: &containers.Container{Spec: &anypb.Any{Value: spec}}}, err
}

// taskServer is the task API of the fake daemon.
type taskServer struct {
	tasks.TTRPCTasksService
	d *pretended
}

func (s taskServer) Exec(_ context.Context, r *tasks.ExecProcessRequest) (*emptypb.Empty, error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	s.d.execIO, s.d.execDone = r, make(chan struct{})
	return &emptypb.Empty{}, json.Unmarshal(r.Spec.Value, &s.d.exec)
}

func (s taskServer) Start(context.Context, *tasks.StartRequest) (*tasks.StartResponse, error) {
	return &tasks.StartResponse{Pid: 9}, s.d.process(s.d.execIO.Stdin, s.d.execIO.Stdout, s.d.execDone)
}

func (s taskServer) Wait(context.Context, *tasks.WaitRequest) (*tasks.WaitResponse, error) {
	<-s.d.execDone
	return &tasks.WaitResponse{ExitStatus: s.d.status}, nil
}

func (s taskServer) DeleteProcess(context.Context, *tasks.DeleteProcessRequest) (*tasks.DeleteResponse, error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	s.d.execDeleted = true
	return &tasks.DeleteResponse{}, nil
}

func (s taskServer) CloseIO(context.Context, *tasks.CloseIORequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, nil
}

func (s taskServer) Pause(_ context.Context, r *tasks.PauseTaskRequest) (*emptypb.Empty, error) {
	if r.ContainerID != "one" && len(r.ContainerID) != 64 {
		return nil, rpc.ToWire(fmt.Errorf("container %s: %w", r.ContainerID, client.ReasonContainerNotFound))
	}
	return &emptypb.Empty{}, nil
}
