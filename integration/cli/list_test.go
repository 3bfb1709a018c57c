package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// TestLists_AsJSON reads the JSON of `ps` and `shim ls` before and after a restart.
func TestLists_AsJSON(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	version := strings.Fields(d.Cleat("version"))[1]
	d.Cleat("run", "-d", "--name", "on", "busybox", "sleep", "1000")
	d.Cleat("run", "-d", "--name", "off", "busybox", "sh", "-c", "exit 7")
	d.Cleat("wait", "off")
	d.Eventually("the shim of the ended container has exited", func() error {
		if list := d.Shims(); len(list) != 1 {
			return fmt.Errorf("%v", list)
		}
		return nil
	})

	check := func() {
		t.Helper()
		type object struct {
			ID, Namespace, Image, Status         string
			Pid                                  int
			ExitCode                             int `json:"exit_code"`
			Created, Started, Finished           string
			Runtime, Version, Socket, State, Log string
		}
		var list []object
		harness.Must(t, json.Unmarshal([]byte(d.Cleat("ps", "--all", "--format", "json")), &list))
		if len(list) != 2 {
			t.Fatalf("ps shows %+v", list)
		}
		slices.SortFunc(list, func(a, b object) int { return strings.Compare(b.ID, a.ID) }) // on before off
		for i, want := range []object{
			{ID: "on", Status: "running"},
			{ID: "off", Status: "stopped", ExitCode: 7},
		} {
			got := list[i]
			if got.ID != want.ID || got.Status != want.Status || got.ExitCode != want.ExitCode ||
				got.Namespace != "default" || got.Image != "docker.io/library/busybox:latest" ||
				(got.Pid != 0) != (want.Status == "running") {
				t.Errorf("ps shows %+v, want %+v", got, want)
			}
			created, started := moment(t, got.Created), moment(t, got.Started)
			if !started.After(created) {
				t.Errorf("%s started at %s, created at %s", got.ID, got.Started, got.Created)
			}
			if want.Status == "stopped" && moment(t, got.Finished).Before(started) {
				t.Errorf("%s started at %s, finished at %s", got.ID, got.Started, got.Finished)
			}
		}
		var shims []object
		harness.Must(t, json.Unmarshal([]byte(d.Cleat("shim", "ls", "--format", "json")), &shims))
		if len(shims) != 1 {
			t.Fatalf("shim ls shows %+v", shims)
		}
		if s := shims[0]; s.ID != "on" || s.Namespace != "default" || s.Pid == 0 || s.Runtime != "io.containerd.cleat.v2" ||
			s.Version != version || s.Socket == "" || s.State != "ready" {
			t.Errorf("shim ls shows %+v, version %q", s, version)
		}
	}
	check()
	d.Restart()
	d.Eventually("the shim is adopted", func() error {
		if s := d.Shims()["on"]; s.State != "ready" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	check()
}

// TestShimList_ShowsVersionOfShim creates a task by two calls of the containerd API.
func TestShimList_ShowsVersionOfShim(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ctx, tasks := fixture.CreateTask(d, "made", fixture.BusyboxSpec(t, "sleep", "1000"), "")
	if s := d.Shims()["made"]; s.Version == "" || s.Pid == 0 {
		t.Errorf("shim ls shows %+v", s)
	}
	fixture.StartTask(ctx, d, tasks, "made")
	_, err := tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: "made", Signal: uint32(unix.SIGKILL)})
	harness.Must(t, err)
	fixture.WaitTask(ctx, d, tasks, "made", 137)
	fixture.DeleteTask(ctx, d, tasks, "made")
}

func moment(t *testing.T, text string) time.Time {
	t.Helper()
	m, err := time.Parse(time.RFC3339Nano, text)
	harness.Must(t, err)
	return m
}
