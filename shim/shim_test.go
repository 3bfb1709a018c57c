package shim_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/fifo"
	"github.com/cleatproject/cleat/internal/exitrecord"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/shimapi"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

func TestContainerLifecycle(t *testing.T) {
	for _, service := range []string{task.V2Service, task.V3Service} {
		t.Run(service, func(t *testing.T) {
			ctx := within(t)
			d := newDaemon(t)
			s := launch(t, d, "life", args("sh", "-c", "echo out; echo err >&2; exit 42"))
			s.service = service
			req := s.request()
			req.Stdout, req.Stderr = s.fifo("out"), s.fifo("err")
			out, errs := s.collect(req.Stdout), s.collect(req.Stderr)

			created := must[task.CreateTaskResponse](ctx, s, "Create", req)
			if st := must[task.StateResponse](ctx, s, "State", &task.StateRequest{Id: s.id}); st.Status != types.Status_CREATED || st.Pid != created.Pid || st.Pid == 0 {
				t.Errorf("after create: %+v", st)
			}
			conn := must[task.ConnectResponse](ctx, s, "Connect", &task.ConnectRequest{Id: s.id})
			if int(conn.ShimPid) != s.cmd.Process.Pid || conn.TaskPid != created.Pid {
				t.Errorf("connect: %+v", conn)
			}
			must[task.StartResponse](ctx, s, "Start", &task.StartRequest{Id: s.id})
			exit := must[task.WaitResponse](ctx, s, "Wait", &task.WaitRequest{Id: s.id})
			if exit.ExitStatus != 42 || exit.ExitedAt == nil {
				t.Errorf("wait: %+v", exit)
			}
			rec, err := exitrecord.Read(s.bundle)
			if err != nil || rec.Status != 42 || rec.ID != s.id || rec.Pid != int(created.Pid) || !rec.ExitedAt.Equal(exit.ExitedAt.Time()) {
				t.Errorf("record: %+v, %v", rec, err)
			}
			if st := must[task.StateResponse](ctx, s, "State", &task.StateRequest{Id: s.id}); st.Status != types.Status_STOPPED || st.ExitStatus != 42 {
				t.Errorf("after exit: %+v", st)
			}
			if text := receive(ctx, t, out); text != "out\n" {
				t.Errorf("stdout %q", text)
			}
			if text := receive(ctx, t, errs); text != "err\n" {
				t.Errorf("stderr %q", text)
			}
			del := must[task.DeleteResponse](ctx, s, "Delete", &task.DeleteRequest{Id: s.id})
			if del.ExitStatus != 42 || del.Pid != created.Pid {
				t.Errorf("delete: %+v", del)
			}
			if _, err := call[task.DeleteResponse](ctx, s, "Delete", &task.DeleteRequest{Id: s.id}); !errdefs.IsNotFound(err) {
				t.Errorf("second delete: %v", err)
			}
			d.await(ctx, t, "delete")
			if got, want := d.topics(t), []string{"create", "start", "exit life 42", "delete"}; !slices.Equal(got, want) {
				t.Errorf("events %q, want %q", got, want)
			}
		})
	}
}

func TestNative_RunAndStatus(t *testing.T) {
	ctx := within(t)
	d := newDaemon(t)
	s := launch(t, d, "native", args("sleep", "1000"))
	run, err := rpc.Call[shimapi.RunResponse](ctx, s.client, shimapi.Service, "Run", &shimapi.RunRequest{Create: s.request()})
	if err != nil {
		t.Fatal(err)
	}
	status, err := rpc.Call[shimapi.StatusResponse](ctx, s.client, shimapi.Service, "Status", &shimapi.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(status.Processes) != 1 || status.Processes[0].Pid != run.Pid || status.Processes[0].Status != types.Status_RUNNING {
		t.Errorf("status: %+v", status)
	}
	must[types.Empty](ctx, s, "Kill", &task.KillRequest{Id: s.id, Signal: 9})
	if exit := must[task.WaitResponse](ctx, s, "Wait", &task.WaitRequest{Id: s.id}); exit.ExitStatus != 137 {
		t.Errorf("exit %d, want 137", exit.ExitStatus)
	}
	must[task.DeleteResponse](ctx, s, "Delete", &task.DeleteRequest{Id: s.id})
	d.await(ctx, t, "delete")
	if got, want := d.topics(t), []string{"create", "start", "exit native 137", "delete"}; !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

func TestParallelExecs(t *testing.T) {
	ctx := within(t)
	d := newDaemon(t)
	s := launch(t, d, "execs", args("sleep", "1000"))
	must[task.CreateTaskResponse](ctx, s, "Create", s.request())
	must[task.StartResponse](ctx, s, "Start", &task.StartRequest{Id: s.id})
	const n = 20
	errs := make(chan error, n)
	for i := range n {
		go func() { errs <- execOnce(ctx, t, s, fmt.Sprintf("exec-%d", i), i) }()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func execOnce(ctx context.Context, t *testing.T, s *shimUnder, id string, code int) error {
	out := s.fifo(id)
	text := s.collect(out)
	_, err := call[types.Empty](ctx, s, "Exec", &task.ExecProcessRequest{
		Id: s.id, ExecId: id, Stdout: out, Spec: processAny(t, false, "sh", "-c", fmt.Sprintf("echo %s; exit %d", id, code)),
	})
	if err != nil {
		return err
	}
	if _, err := call[task.StartResponse](ctx, s, "Start", &task.StartRequest{Id: s.id, ExecId: id}); err != nil {
		return err
	}
	exit, err := call[task.WaitResponse](ctx, s, "Wait", &task.WaitRequest{Id: s.id, ExecId: id})
	if err != nil {
		return err
	}
	if int(exit.ExitStatus) != code {
		return fmt.Errorf("%s: exit %d", id, exit.ExitStatus)
	}
	if got := <-text; got != id+"\n" {
		return fmt.Errorf("%s: output %q", id, got)
	}
	_, err = call[task.DeleteResponse](ctx, s, "Delete", &task.DeleteRequest{Id: s.id, ExecId: id})
	return err
}

func TestTerminal(t *testing.T) {
	ctx := within(t)
	d := newDaemon(t)
	s := launch(t, d, "tty", func(spec map[string]any) {
		args("sh", "-c", "stty size; read line; echo got $line; stty size; exit 5")(spec)
		spec["process"].(map[string]any)["terminal"] = true
	})
	req := s.request()
	req.Terminal, req.Stdin, req.Stdout = true, s.fifo("in"), s.fifo("out")
	out := s.collect(req.Stdout)
	must[task.CreateTaskResponse](ctx, s, "Create", req)
	must[types.Empty](ctx, s, "ResizePty", &task.ResizePtyRequest{Id: s.id, Width: 91, Height: 37})
	must[task.StartResponse](ctx, s, "Start", &task.StartRequest{Id: s.id})
	w, err := fifo.OpenWriter(ctx, req.Stdin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if exit := must[task.WaitResponse](ctx, s, "Wait", &task.WaitRequest{Id: s.id}); exit.ExitStatus != 5 {
		t.Errorf("exit %d, want 5", exit.ExitStatus)
	}
	must[task.DeleteResponse](ctx, s, "Delete", &task.DeleteRequest{Id: s.id})
	_ = w.Close()
	text := receive(ctx, t, out)
	for _, want := range []string{"37 91\r\n", "hello\r\n", "got hello\r\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("output %q lacks %q", text, want)
		}
	}
}

func TestResize_ExecBeforeStart(t *testing.T) {
	ctx := within(t)
	d := newDaemon(t)
	s := launch(t, d, "early", args("sleep", "1000"))
	s.run(s.request())
	out := s.fifo("out")
	text := s.collect(out)
	must[types.Empty](ctx, s, "Exec", &task.ExecProcessRequest{
		Id: s.id, ExecId: "x", Terminal: true, Stdout: out, Spec: processAny(t, true, "stty", "size"),
	})
	must[types.Empty](ctx, s, "Exec", &task.ExecProcessRequest{
		Id: s.id, ExecId: "plain", Spec: processAny(t, false, "true"),
	})
	must[types.Empty](ctx, s, "ResizePty", &task.ResizePtyRequest{Id: s.id, ExecId: "x", Width: 11, Height: 22})
	must[types.Empty](ctx, s, "ResizePty", &task.ResizePtyRequest{Id: s.id, ExecId: "x", Width: 77, Height: 33})
	if _, err := call[types.Empty](ctx, s, "ResizePty", &task.ResizePtyRequest{Id: s.id, ExecId: "x", Width: 1 << 16, Height: 1}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("resize to an impossible width: %v", err)
	}
	if _, err := call[types.Empty](ctx, s, "ResizePty", &task.ResizePtyRequest{Id: s.id, ExecId: "plain", Width: 1, Height: 1}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("resize without a terminal: %v", err)
	}
	must[task.StartResponse](ctx, s, "Start", &task.StartRequest{Id: s.id, ExecId: "x"})
	must[task.WaitResponse](ctx, s, "Wait", &task.WaitRequest{Id: s.id, ExecId: "x"})
	must[task.DeleteResponse](ctx, s, "Delete", &task.DeleteRequest{Id: s.id, ExecId: "x"})
	if got := <-text; got != "33 77\r\n" {
		t.Errorf("the terminal's size at the start is %q", got)
	}
}

func TestExec_WithTerminal(t *testing.T) {
	ctx := within(t)
	d := newDaemon(t)
	s := launch(t, d, "exectty", args("sleep", "1000"))
	s.run(s.request())
	in, out := s.fifo("in"), s.fifo("out")
	text := s.collect(out)
	must[types.Empty](ctx, s, "Exec", &task.ExecProcessRequest{
		Id: s.id, ExecId: "x", Terminal: true, Stdin: in, Stdout: out,
		Spec: processAny(t, true, "sh", "-c", "read line; stty size; echo got $line; exit 4"),
	})
	must[task.StartResponse](ctx, s, "Start", &task.StartRequest{Id: s.id, ExecId: "x"})
	must[types.Empty](ctx, s, "ResizePty", &task.ResizePtyRequest{Id: s.id, ExecId: "x", Width: 55, Height: 44})
	w, err := fifo.OpenWriter(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	if _, err := io.WriteString(w, "hi\n"); err != nil {
		t.Fatal(err)
	}
	if e := must[task.WaitResponse](ctx, s, "Wait", &task.WaitRequest{Id: s.id, ExecId: "x"}); e.ExitStatus != 4 {
		t.Errorf("exit %d", e.ExitStatus)
	}
	must[task.DeleteResponse](ctx, s, "Delete", &task.DeleteRequest{Id: s.id, ExecId: "x"})
	if got := receive(ctx, t, text); !strings.Contains(got, "44 55\r\n") || !strings.Contains(got, "got hi\r\n") {
		t.Errorf("output %q", got)
	}
	if _, err := call[types.Empty](ctx, s, "ResizePty", &task.ResizePtyRequest{Id: s.id, Width: 1, Height: 1}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("resize without a terminal: %v", err)
	}
}

// CloseIO before Start holds for the process once it is started.
func TestExec_StdinClosedBeforeStart(t *testing.T) {
	ctx := within(t)
	d := newDaemon(t)
	s := launch(t, d, "early", args("sleep", "1000"))
	s.run(s.request())
	in := s.fifo("in")
	must[types.Empty](ctx, s, "Exec", &task.ExecProcessRequest{Id: s.id, ExecId: "x", Stdin: in, Spec: processAny(t, false, "cat")})
	must[types.Empty](ctx, s, "CloseIO", &task.CloseIORequest{Id: s.id, ExecId: "x", Stdin: true})
	must[task.StartResponse](ctx, s, "Start", &task.StartRequest{Id: s.id, ExecId: "x"})
	if e := must[task.WaitResponse](ctx, s, "Wait", &task.WaitRequest{Id: s.id, ExecId: "x"}); e.ExitStatus != 0 {
		t.Errorf("exit %d", e.ExitStatus)
	}
}

// A created container that never ran can be deleted; its exit is published.
func TestDelete_CreatedContainer(t *testing.T) {
	ctx := within(t)
	d := newDaemon(t)
	s := launch(t, d, "never", args("true"))
	must[task.CreateTaskResponse](ctx, s, "Create", s.request())
	del := must[task.DeleteResponse](ctx, s, "Delete", &task.DeleteRequest{Id: s.id})
	if del.ExitStatus != 137 {
		t.Errorf("delete: %+v", del)
	}
	d.await(ctx, t, "delete")
	if got, want := d.topics(t), []string{"create", "exit never 137", "delete"}; !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}
