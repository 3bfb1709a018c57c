package shim_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/exitrecord"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/shimapi"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// waiting is a command that continues on s.proceed.
func waiting(then string) func(map[string]any) {
	return args("sh", "-c", "until [ -e /tmp/go ]; do sleep 0.02; done; "+then)
}

func (s *shimUnder) proceed() {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.bundle, "rootfs", "tmp", "go"), nil, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// native returns the shim's Status.
func (s *shimUnder) native() *shimapi.StatusResponse {
	s.t.Helper()
	resp, err := rpc.Call[shimapi.StatusResponse](within(s.t), s.client, shimapi.Service, "Status", &shimapi.StatusRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	return resp
}

// Invariant 2: the container outlives its shim, and another one reports its exit.
func TestAdopt_ContainerKeepsRunning(t *testing.T) {
	for _, want := range []int{0, 7, 137} {
		t.Run(strconv.Itoa(want), func(t *testing.T) {
			ctx := within(t)
			d := newDaemon(t)
			command := waiting("exit " + strconv.Itoa(want))
			if want == 137 {
				command = args("sleep", "1000")
			}
			s := launch(t, d, "orphan", command)
			s.run(s.request())
			d.await(ctx, t, "start")
			before := s.native().Processes[0]
			s.kill9()
			s.adopt()
			after := s.native().Processes[0]
			if after.Pid != before.Pid || after.Status != types.Status_RUNNING || !after.StartedAt.Time().Equal(before.StartedAt.Time()) {
				t.Errorf("it was %+v, is %+v", before, after)
			}
			if err := execOnce(ctx, t, s, "x", 5); err != nil {
				t.Error(err)
			}
			pids := must[task.PidsResponse](ctx, s, "Pids", &task.PidsRequest{Id: s.id}).Processes
			if !slices.ContainsFunc(pids, func(p *types.ProcessInfo) bool { return p.Pid == before.Pid }) {
				t.Errorf("pids %v lack %d", pids, before.Pid)
			}
			must[task.StatsResponse](ctx, s, "Stats", &task.StatsRequest{Id: s.id})
			if want == 137 {
				must[types.Empty](ctx, s, "Kill", &task.KillRequest{Id: s.id, Signal: 9})
			} else {
				s.proceed()
			}
			if code := s.wait(); code != uint32(want) {
				t.Errorf("exit %d", code)
			}
			if rec, err := exitrecord.Read(s.bundle); err != nil || rec.Status != want || rec.Pid != int(before.Pid) || rec.OOM {
				t.Errorf("record %+v, %v", rec, err)
			}
			s.remove()
			d.await(ctx, t, "delete")
			got := slices.DeleteFunc(d.topics(t), func(topic string) bool { return strings.Contains(topic, "exec-") || topic == "exit x 5" })
			if want := []string{"create", "start", "exit orphan " + strconv.Itoa(want), "delete"}; !slices.Equal(got, want) {
				t.Errorf("events %q, want %q", got, want)
			}
		})
	}
}

func TestAdopt_PausedContainer(t *testing.T) {
	ctx := within(t)
	d := newDaemon(t)
	s := launch(t, d, "paused", waiting("exit 4"))
	s.run(s.request())
	must[types.Empty](ctx, s, "Pause", &task.PauseRequest{Id: s.id})
	d.await(ctx, t, "paused")
	s.kill9()
	s.adopt()
	if st := s.status(); st != types.Status_PAUSED {
		t.Errorf("it is %v", st)
	}
	must[types.Empty](ctx, s, "Resume", &task.ResumeRequest{Id: s.id})
	s.proceed()
	if code := s.wait(); code != 4 {
		t.Errorf("exit %d", code)
	}
	s.remove()
	d.await(ctx, t, "delete")
	if got, want := d.topics(t), []string{"create", "start", "paused", "resumed", "exit paused 4", "delete"}; !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

// A created container is started by the shim that adopts it; one whose shim died after the start
// and before it recorded that is running, and its start is published.
func TestAdopt_CreatedContainer(t *testing.T) {
	for _, missed := range []bool{false, true} {
		t.Run(fmt.Sprint("start missed ", missed), func(t *testing.T) {
			ctx := within(t)
			d := newDaemon(t)
			s := launch(t, d, "created", waiting("exit 3"))
			must[task.CreateTaskResponse](ctx, s, "Create", s.request())
			d.await(ctx, t, "create")
			if missed {
				handle, err := os.ReadFile(filepath.Join(s.bundle, "shim.json"))
				if err != nil {
					t.Fatal(err)
				}
				must[task.StartResponse](ctx, s, "Start", &task.StartRequest{Id: s.id})
				d.await(ctx, t, "start")
				s.kill9()
				if err := os.WriteFile(filepath.Join(s.bundle, "shim.json"), handle, 0o600); err != nil {
					t.Fatal(err)
				}
				s.adopt()
			} else {
				s.kill9()
				s.adopt()
				if st := s.status(); st != types.Status_CREATED {
					t.Errorf("it is %v", st)
				}
				must[task.StartResponse](ctx, s, "Start", &task.StartRequest{Id: s.id})
			}
			if st := s.status(); st != types.Status_RUNNING {
				t.Errorf("it is %v", st)
			}
			if missed {
				eventually(t, func() bool {
					return len(slices.DeleteFunc(d.topics(t), func(s string) bool { return s != "start" })) == 2
				})
			}
			d.await(ctx, t, "start")
			s.kill9() // the second shim's records suffice, too
			s.adopt()
			s.proceed()
			if code := s.wait(); code != 3 {
				t.Errorf("exit %d", code)
			}
			s.remove()
			d.await(ctx, t, "delete")
			want := []string{"create", "start", "exit created 3", "delete"}
			if missed {
				want = slices.Insert(want, 2, "start")
			}
			if got := d.topics(t); !slices.Equal(got, want) {
				t.Errorf("events %q, want %q", got, want)
			}
		})
	}
}

// A created container that never ran can be deleted after an adoption, too.
func TestDelete_AdoptedCreatedContainer(t *testing.T) {
	d := newDaemon(t)
	s := launch(t, d, "never", args("true"))
	must[task.CreateTaskResponse](within(t), s, "Create", s.request())
	s.kill9()
	s.adopt()
	if del := must[task.DeleteResponse](within(t), s, "Delete", &task.DeleteRequest{Id: s.id}); del.ExitStatus != 137 {
		t.Errorf("delete: %+v", del)
	}
}

// An OOM kill is seen by the shim that adopted the container, and before the exit.
func TestAdopt_PublishesOOM(t *testing.T) {
	ctx := within(t)
	d := newDaemon(t)
	s := launch(t, d, "oom", greedy(waiting("exec tail /dev/zero")))
	s.run(s.request())
	d.await(ctx, t, "start")
	s.kill9()
	s.adopt()
	s.proceed()
	s.expectOOMKill(ctx)
}

// What cannot be adopted is left unchanged for the verb delete; the shim holds nothing.
func TestAdopt_InvalidBundle_Fails(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, s *shimUnder, pid int, h map[string]any){
		"another process":   func(_ *testing.T, _ *shimUnder, _ int, h map[string]any) { h["start_time"] = 1 },
		"an older handle":   func(_ *testing.T, _ *shimUnder, _ int, h map[string]any) { delete(h, "pid"); delete(h, "start_time") },
		"another container": func(_ *testing.T, _ *shimUnder, _ int, h map[string]any) { h["id"] = "other" },
		"no handle":         func(_ *testing.T, _ *shimUnder, _ int, h map[string]any) { clear(h) },
		"a recorded exit": func(t *testing.T, s *shimUnder, pid int, _ map[string]any) {
			if err := os.WriteFile(filepath.Join(s.bundle, "exit.json"),
				[]byte(fmt.Sprintf(`{"id":%q,"pid":%d,"status":1,"exited_at":"2026-01-02T03:04:05Z"}`, s.id, pid)), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t)
			s := launch(t, d, "refused", args("sleep", "1000"))
			s.run(s.request())
			pid := int(s.native().Processes[0].Pid)
			s.kill9()
			path := filepath.Join(s.bundle, "shim.json")
			saved, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			h := make(map[string]any)
			decoder := json.NewDecoder(strings.NewReader(string(saved)))
			decoder.UseNumber()
			if err := decoder.Decode(&h); err != nil {
				t.Fatal(err)
			}
			spoil(t, s, pid, h)
			data, err := json.Marshal(h)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			s.adopt()
			if n := len(s.native().Processes); n != 0 {
				t.Errorf("it holds %d processes", n)
			}
			if err := unix.Kill(pid, 0); err != nil || zombie(pid) {
				t.Errorf("the container was touched: %v", err)
			}
			// In good order again, it is adopted, which also cleans up.
			if err := os.WriteFile(path, saved, 0o600); err != nil {
				t.Fatal(err)
			}
			_ = os.Remove(filepath.Join(s.bundle, "exit.json"))
			s.kill9()
			s.adopt()
			if n := len(s.native().Processes); n != 1 {
				t.Errorf("in good order it holds %d processes", n)
			}
		})
	}
}

// A live shim is not replaced, however the new one is started.
func TestAdopt_LiveShim_Fails(t *testing.T) {
	d := newDaemon(t)
	s := launch(t, d, "twice", args("sleep", "1000"))
	s.run(s.request())
	first := *s
	s.adopt()
	if n := len(s.native().Processes); n != 0 {
		t.Errorf("the second shim holds %d processes", n)
	}
	must[types.Empty](within(t), s, "Shutdown", &task.ShutdownRequest{Id: s.id})
	if err := <-s.exited; err != nil { // the first one runs
		t.Errorf("second shim: %v", err)
	}
	_ = s.client.Close()
	*s = first
	if n := len(s.native().Processes); n != 1 {
		t.Errorf("the first shim holds %d processes", n)
	}
	s.kill9()
	s.adopt()
	if n := len(s.native().Processes); n != 1 {
		t.Errorf("after its death the next holds %d processes", n)
	}
}

// The init dies while it has no shim. Either its new parent has not collected it yet and the status
// is known, or nothing is: then the shim is empty. It never reports a wrong status.
func TestAdopt_DeadInit(t *testing.T) {
	for range 3 {
		d := newDaemon(t)
		s := launch(t, d, "late", args("sleep", "1000"))
		s.run(s.request())
		pid := int(s.native().Processes[0].Pid)
		s.kill9()
		if err := unix.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { return syscall.Kill(pid, 0) != nil || zombie(pid) })
		s.adopt()
		if len(s.native().Processes) == 0 {
			t.Log("its exit is lost")
			if _, err := os.Stat(filepath.Join(s.bundle, "exit.json")); err == nil {
				t.Error("an exit was made up")
			}
			cleanUp(t, s)
			continue
		}
		if code := s.wait(); code != 137 {
			t.Errorf("exit %d", code)
		}
		if rec, err := exitrecord.Read(s.bundle); err != nil || rec.Status != 137 || rec.OOM {
			t.Errorf("record %+v, %v", rec, err)
		}
		s.remove()
	}
}
