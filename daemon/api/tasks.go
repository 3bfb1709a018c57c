package api

import (
	"cmp"
	"context"
	"errors"
	"time"

	api "github.com/containerd/containerd/api/services/tasks/v1"
	apitypes "github.com/containerd/containerd/api/types"
	apitask "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/api/wire"
	"github.com/cleatproject/cleat/daemon/service/containers"
	"github.com/cleatproject/cleat/internal/filters"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/runtime"
)

// tasksService is containerd.services.tasks.v1. Create goes to daemon/service/containers/task.go, everything else
// straight to the runtime.
type tasksService struct {
	tasks      *runtime.Manager
	containers *containers.Service
	api.UnsafeTasksServer
}

var (
	_ api.TasksServer       = tasksService{}
	_ api.TTRPCTasksService = tasksService{}
)

// get returns the task of a request's namespace, waiting for one that is being created.
func (s tasksService) get(ctx context.Context, id string) (*runtime.Task, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	return s.tasks.Await(ctx, ns, id)
}

func (s tasksService) Create(ctx context.Context, req *api.CreateTaskRequest) (*api.CreateTaskResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	join, err := joinOf(req)
	if err != nil {
		return nil, err
	}
	want := containers.TaskRequest{
		Launch: runtime.LaunchOptions{
			ID: req.GetContainerID(), Runtime: req.GetRuntimePath(), Options: wire.ShimAny(req.GetOptions()), Join: join,
		},
		Create: runtime.CreateOptions{
			Rootfs: wire.FromMounts(req.GetRootfs()),
			Stdin:  req.GetStdin(), Stdout: req.GetStdout(), Stderr: req.GetStderr(), Terminal: req.GetTerminal(),
		},
	}
	if from := req.GetCheckpoint(); from != nil {
		d := wire.FromDescriptor(from)
		want.Checkpoint = &d
	}
	t, err := s.containers.CreateTask(ctx, ns, want)
	if err != nil {
		return nil, err
	}
	return &api.CreateTaskResponse{ContainerID: t.ID(), Pid: t.Info().Pid}, nil
}

func (s tasksService) Start(ctx context.Context, req *api.StartRequest) (*api.StartResponse, error) {
	t, err := s.get(ctx, req.GetContainerID())
	if err != nil {
		return nil, err
	}
	start := t.Start
	if id := req.GetExecID(); id != "" {
		start = func(ctx context.Context) (uint32, error) { return t.StartExec(ctx, id) }
	}
	pid, err := start(ctx)
	if err != nil {
		return nil, err
	}
	return &api.StartResponse{Pid: pid}, nil
}

func (s tasksService) Delete(ctx context.Context, req *api.DeleteTaskRequest) (*api.DeleteResponse, error) {
	t, err := s.get(ctx, req.GetContainerID())
	if err != nil {
		return nil, err
	}
	e, err := s.containers.DeleteTask(ctx, t)
	if err != nil {
		return nil, err
	}
	return &api.DeleteResponse{ID: t.ID(), Pid: e.Pid, ExitStatus: e.Status, ExitedAt: wire.Timestamp(e.At)}, nil
}

func (s tasksService) DeleteProcess(ctx context.Context, req *api.DeleteProcessRequest) (*api.DeleteResponse, error) {
	t, err := s.get(ctx, req.GetContainerID())
	if err != nil {
		return nil, err
	}
	e, err := t.DeleteExec(ctx, req.GetExecID())
	if err != nil {
		return nil, err
	}
	return &api.DeleteResponse{ID: req.GetExecID(), Pid: e.Pid, ExitStatus: e.Status, ExitedAt: wire.Timestamp(e.At)}, nil
}

func (s tasksService) Get(ctx context.Context, req *api.GetRequest) (*api.GetResponse, error) {
	t, err := s.get(ctx, req.GetContainerID())
	if err != nil {
		return nil, err
	}
	st, err := t.State(ctx, req.GetExecID())
	if errors.Is(err, errdefs.ErrUnavailable) && req.GetExecID() == "" {
		st, err = &task.StateResponse{Id: t.ID(), Pid: t.Info().Pid, Status: types.Status_UNKNOWN}, nil
	}
	if err != nil {
		return nil, err
	}
	return &api.GetResponse{Process: &apitask.Process{
		ContainerID: t.ID(), ID: cmp.Or(req.GetExecID(), t.ID()), Pid: st.Pid, Status: apitask.Status(st.Status),
		Stdin: st.Stdin, Stdout: st.Stdout, Stderr: st.Stderr, Terminal: st.Terminal,
		ExitStatus: st.ExitStatus, ExitedAt: exitStamp(st.ExitedAt.Time()),
	}}, nil
}

// exitStamp is the time of a process's exit. That of a running process is the zero time of Go, which
// clients test for; a missing timestamp is the Unix epoch for them.
func exitStamp(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }

// List lists the tasks that match the filter, whose fields are id, container, pid, status and runtime.
func (s tasksService) List(ctx context.Context, req *api.ListTasksRequest) (*api.ListTasksResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	match, err := filters.ParseAll(nonEmpty(req.GetFilter())...)
	if err != nil {
		return nil, err
	}
	resp := &api.ListTasksResponse{}
	for _, t := range s.tasks.List(ns) {
		i := t.Info()
		if !match.Match(taskFields(i)) {
			continue
		}
		resp.Tasks = append(resp.Tasks, &apitask.Process{
			ContainerID: i.ID, ID: i.ID, Pid: i.Pid, Status: apitask.Status(i.Status),
			Stdin: i.Stdin, Stdout: i.Stdout, Stderr: i.Stderr, Terminal: i.Terminal,
			ExitStatus: i.Exit.Status, ExitedAt: exitStamp(i.Exit.At),
		})
	}
	return resp, nil
}

func (s tasksService) Kill(ctx context.Context, req *api.KillRequest) (*emptypb.Empty, error) {
	t, err := s.get(ctx, req.GetContainerID())
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, t.Kill(ctx, req.GetExecID(), req.GetSignal(), req.GetAll())
}

func (s tasksService) Exec(ctx context.Context, req *api.ExecProcessRequest) (*emptypb.Empty, error) {
	t, err := s.get(ctx, req.GetContainerID())
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, t.Exec(ctx, &task.ExecProcessRequest{
		ExecId: req.GetExecID(), Terminal: req.GetTerminal(),
		Stdin: req.GetStdin(), Stdout: req.GetStdout(), Stderr: req.GetStderr(), Spec: wire.ShimAny(req.GetSpec()),
	})
}

func (s tasksService) ResizePty(ctx context.Context, req *api.ResizePtyRequest) (*emptypb.Empty, error) {
	t, err := s.get(ctx, req.GetContainerID())
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, t.ResizePty(ctx, req.GetExecID(), req.GetWidth(), req.GetHeight())
}

func (s tasksService) CloseIO(ctx context.Context, req *api.CloseIORequest) (*emptypb.Empty, error) {
	t, err := s.get(ctx, req.GetContainerID())
	if err != nil {
		return nil, err
	}
	if !req.GetStdin() { // there is nothing else to close
		_, err := t.State(ctx, req.GetExecID())
		return &emptypb.Empty{}, err
	}
	return &emptypb.Empty{}, t.CloseIO(ctx, req.GetExecID())
}

func (s tasksService) Pause(ctx context.Context, req *api.PauseTaskRequest) (*emptypb.Empty, error) {
	t, err := s.get(ctx, req.GetContainerID())
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, t.Pause(ctx)
}

func (s tasksService) Resume(ctx context.Context, req *api.ResumeTaskRequest) (*emptypb.Empty, error) {
	t, err := s.get(ctx, req.GetContainerID())
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, t.Resume(ctx)
}

func (s tasksService) ListPids(ctx context.Context, req *api.ListPidsRequest) (*api.ListPidsResponse, error) {
	t, err := s.get(ctx, req.GetContainerID())
	if err != nil {
		return nil, err
	}
	pids, err := t.Pids(ctx)
	if err != nil {
		return nil, err
	}
	resp := &api.ListPidsResponse{}
	for _, p := range pids {
		resp.Processes = append(resp.Processes, &apitask.ProcessInfo{Pid: p.Pid, Info: wire.FromShimAny(p.Info)})
	}
	return resp, nil
}

func (s tasksService) Checkpoint(ctx context.Context, req *api.CheckpointTaskRequest) (*api.CheckpointTaskResponse, error) {
	if req.GetParentCheckpoint() != "" {
		return nil, wire.Unsupported("checkpoint task", "parent_checkpoint")
	}
	t, err := s.get(ctx, req.GetContainerID())
	if err != nil {
		return nil, err
	}
	written, err := s.containers.Checkpoint(ctx, t, wire.ShimAny(req.GetOptions()))
	if err != nil {
		return nil, err
	}
	resp := &api.CheckpointTaskResponse{}
	for _, d := range written {
		resp.Descriptors = append(resp.Descriptors, wire.ToDescriptor(d))
	}
	return resp, nil
}

func (s tasksService) Update(ctx context.Context, req *api.UpdateTaskRequest) (*emptypb.Empty, error) {
	t, err := s.get(ctx, req.GetContainerID())
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.containers.UpdateTask(ctx, t, wire.ShimAny(req.GetResources()), req.GetAnnotations())
}

// Metrics asks the shims side by side; one that does not answer in time is left out.
func (s tasksService) Metrics(ctx context.Context, req *api.MetricsRequest) (*api.MetricsResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	match, err := filters.ParseAll(req.GetFilters()...)
	if err != nil {
		return nil, err
	}
	resp := &api.MetricsResponse{}
	for _, m := range s.containers.Metrics(ctx, ns, match) {
		resp.Metrics = append(resp.Metrics, &apitypes.Metric{Timestamp: wire.Timestamp(time.Now()), ID: m.ID, Data: wire.FromShimAny(m.Stats)})
	}
	return resp, nil
}

func (s tasksService) Wait(ctx context.Context, req *api.WaitRequest) (*api.WaitResponse, error) {
	t, err := s.get(ctx, req.GetContainerID())
	if err != nil {
		return nil, err
	}
	e, err := t.Wait(ctx, req.GetExecID())
	if err != nil {
		return nil, err
	}
	return &api.WaitResponse{ExitStatus: e.Status, ExitedAt: wire.Timestamp(e.At)}, nil
}
