package api

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

func TestPlugins_Unsupported_AreShownAsSkipped(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	out, stderr, err := d.Ctr("plugins", "ls")
	if err != nil {
		t.Fatalf("ctr plugins ls: %v: %s", err, stderr)
	}
	skipped := 0
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		switch f[3] {
		case "skip":
			skipped++
		case "error":
			t.Errorf("ctr shows an error: %s", line)
		}
	}
	if skipped == 0 { // current kernels have no aufs
		t.Errorf("ctr shows nothing as skipped:\n%s", out)
	}
}

func TestForward_AcceptsEmptyEvent(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	before := fixture.LastCursor(d)
	_, err := eventsapi.NewEventsClient(conn).Forward(ctx, &eventsapi.ForwardRequest{Envelope: &types.Envelope{
		Timestamp: timestamppb.Now(), Namespace: "default", Topic: "/empty", Event: &anypb.Any{},
	}})
	harness.Must(t, err)
	end := fixture.LastCursor(d)
	found := false
	fixture.EachEvent(d, fixture.Client(d), client.EventsRequest{Cursor: before, AllNamespaces: true}, func(e client.Event) bool {
		found = found || e.Topic == "/empty" && e.TypeURL == "" && len(e.Value) == 0
		return e.Cursor < end
	})
	if !found {
		t.Error("the event is not in the log")
	}
}

func TestCgroupPath_ContainsDaemon(t *testing.T) {
	t.Parallel()
	path := fmt.Sprintf("/cleat-test-%d/inner", os.Getpid())
	t.Cleanup(func() { // after the daemons have ended
		for _, dir := range []string{path, filepath.Dir(path)} {
			found, err := filepath.Glob("/sys/fs/cgroup/*" + dir)
			harness.Must(t, err)
			for _, f := range append(found, "/sys/fs/cgroup"+dir) {
				if err := os.Remove(f); err != nil && !os.IsNotExist(err) {
					t.Error(err)
				}
			}
		}
	})
	config := filepath.Join(t.TempDir(), "config.toml")
	for name, text := range map[string]string{
		"cleat's file":      "version = 1\n[cgroup]\npath = %q\n",
		"containerd's file": "version = 3\n[cgroup]\npath = %q\n",
	} {
		harness.Must(t, os.WriteFile(config, fmt.Appendf(nil, text, path), 0o600))
		d := harness.Start(t, "--config", config)
		groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", d.Cmd.Process.Pid))
		harness.Must(t, err)
		for line := range strings.Lines(strings.TrimSpace(string(groups))) {
			if line = strings.TrimSpace(line); !strings.HasSuffix(line, ":"+path) {
				t.Errorf("%s: the daemon is in %s", name, line)
			}
		}
		d.Busybox()
		d.Cleat("run", "--rm", "busybox", "true")
	}
}

// TestLogFIFO_ReachesLogOfDaemon writes to the log FIFO of containerd's shim, before and after a restart.
func TestLogFIFO_ReachesLogOfDaemon(t *testing.T) {
	t.Parallel()
	d := harness.StartForeign(t)
	ctx, tasks := fixture.CreateTask(d, "c", fixture.BusyboxSpec(t, "sleep", "1000"), "")
	fixture.StartTask(ctx, d, tasks, "c")
	fifo := filepath.Join(d.State, "io.containerd.runtime.v2.task", "default", "c", "log")
	say := func(text string) {
		t.Helper()
		f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
		harness.Must(t, err)
		defer f.Close()
		_, err = f.WriteString(text)
		harness.Must(t, err)
		d.Eventually("the daemon logs the text", func() error {
			if !strings.Contains(d.Log(), strings.TrimSpace(text)) {
				return fmt.Errorf("no %q in the log", text)
			}
			return nil
		})
	}
	say("said before the restart\n")
	d.Restart()
	say("said after the restart\n")
	say("said without an end of the line")
	long := strings.Repeat("x", 100<<10) + " and it ends"
	say(long[len(long)-60000:])
	say("said after a long line\n")
}
