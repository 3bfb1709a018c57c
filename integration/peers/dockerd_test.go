package peers

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/integration/harness"
)

// startAsContainerd starts a daemon as hosts start containerd, with a configuration file of containerd's format.
func startAsContainerd(t *testing.T) *harness.Daemon {
	t.Helper()
	base, err := os.MkdirTemp("", "cleat-it")
	harness.Must(t, err)
	config := filepath.Join(base, "containerd.toml")
	harness.Must(t, os.WriteFile(config, []byte(`version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[plugins."io.containerd.gc.v1.scheduler"]
mutation_threshold = 50
[plugins."io.containerd.internal.v1.opt"]
path = "/opt/containerd"
`), 0o600))
	return harness.StartAt(t, base, "-c", config)
}

func TestDockerd_OnCleatd(t *testing.T) {
	t.Parallel()
	d := startAsContainerd(t)
	if n := strings.Count(d.Log(), "is ignored"); n != 1 {
		t.Errorf("%d warnings of the configuration, want one:\n%s", n, d.Log())
	}
	k := harness.StartDockerd(t, d.Address)
	busybox(k)
	image := k.Call("GET", "/images/bb/get", nil)
	k.Call("DELETE", "/images/bb", nil)
	k.Call("POST", "/images/load", bytes.NewReader(image))

	k.Create("one", "echo out; echo err >&2; exit 42", nil)
	if code := k.Wait("one"); code != 42 {
		t.Errorf("wait: %d", code)
	}
	if s := inspect(k, "one"); s.State.Status != "exited" || s.State.ExitCode != 42 {
		t.Errorf("inspect: %+v", s)
	}
	if stdout, stderr := k.Logs("one"); stdout != "out\n" || stderr != "err\n" {
		t.Errorf("logs: %q, %q", stdout, stderr)
	}
	k.Call("POST", "/containers/one/start", nil) // a second start
	if code := k.Wait("one"); code != 42 {
		t.Errorf("wait after a second start: %d", code)
	}
	k.Call("DELETE", "/containers/one", nil)

	k.Create("two", harness.Trapping(9), nil)
	harness.Eventually(t, "the container is ready", func() error {
		if _, _, code := dockerExec(k, "two", "test -e /ready"); code != 0 {
			return fmt.Errorf("code %d", code)
		}
		return nil
	}, k.Log)
	stdout, stderr, code := dockerExec(k, "two", "echo in; echo no >&2; exit 5")
	if stdout != "in\n" || stderr != "no\n" || code != 5 {
		t.Errorf("exec: %q, %q, %d", stdout, stderr, code)
	}
	k.Call("POST", "/containers/two/pause", nil)
	if s := inspect(k, "two"); !s.State.Paused {
		t.Errorf("inspect of a paused container: %+v", s)
	}
	k.Call("POST", "/containers/two/unpause", nil)
	var stats struct {
		PidsStats   struct{ Current uint64 } `json:"pids_stats"`
		MemoryStats struct{ Usage uint64 }   `json:"memory_stats"`
	}
	harness.Eventually(t, "stats are present", func() error { // a slow shim is left out
		k.Decode("GET", "/containers/two/stats?stream=false&one-shot=true", nil, &stats)
		if stats.PidsStats.Current == 0 || stats.MemoryStats.Usage == 0 {
			return fmt.Errorf("%+v", stats)
		}
		return nil
	}, k.Log)
	if top := k.Call("GET", "/containers/two/top", nil); !bytes.Contains(top, []byte("sleep")) {
		t.Errorf("top: %s", top)
	}
	k.Call("POST", "/containers/two/update", map[string]any{"Memory": 64 << 20, "MemorySwap": -1})
	k.Call("POST", "/containers/two/stop?t=30", nil)
	if s := inspect(k, "two"); s.State.ExitCode != 9 {
		t.Errorf("stop: %+v", s)
	}
	k.Call("POST", "/containers/two/start", nil)
	k.Call("POST", "/containers/two/kill", nil)
	if s := is(k, "two", "exited"); s.State.ExitCode != 137 {
		t.Errorf("kill: %+v", s)
	}
	k.Call("DELETE", "/containers/two", nil)

	k.Create("three", "exit 3", map[string]any{"RestartPolicy": map[string]any{"Name": "on-failure", "MaximumRetryCount": 2}})
	if s := is(k, "three", "exited"); s.RestartCount != 2 || s.State.ExitCode != 3 {
		t.Errorf("restart policy: %+v", s)
	}
	k.Call("DELETE", "/containers/three", nil)
}

func TestDockerd_CleatdAway_ReceivesExit(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	k := harness.StartDockerd(t, d.Address)
	busybox(k)
	go7 := filepath.Join(t.TempDir(), "go")
	harness.Must(t, unix.Mkfifo(go7, 0o600))
	bind := map[string]any{"Binds": []string{go7 + ":/go"}}
	k.Create("stays", "while :; do sleep 0.1; done", nil)
	k.Create("ends", "read x < /go; exit 7", bind)
	k.Create("comesback", "read x < /go; exit 7", map[string]any{
		"Binds": bind["Binds"], "RestartPolicy": map[string]any{"Name": "always"},
	})
	pids := []int{inspect(k, "ends").State.Pid, inspect(k, "comesback").State.Pid}
	stays := inspect(k, "stays").State.Pid

	d.Kill9()
	f, err := os.OpenFile(go7, os.O_RDWR, 0)
	harness.Must(t, err)
	_, err = f.WriteString("a\nb\n")
	harness.Must(t, err)
	for _, pid := range pids {
		d.Eventually("the container has ended", harness.Gone(pid))
	}
	harness.Must(t, f.Close())
	d.Begin()

	if s := is(k, "ends", "exited"); s.State.ExitCode != 7 {
		t.Errorf("exit without managers: %+v", s)
	}
	harness.Eventually(t, "the other container is restarted", func() error {
		if s := inspect(k, "comesback"); s.State.Status != "running" || s.State.Pid == pids[1] || s.RestartCount != 1 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	}, k.Log)
	if out, _, code := dockerExec(k, "stays", "echo in"); out != "in\n" || code != 0 || inspect(k, "stays").State.Pid != stays {
		t.Errorf("exec after a restart: %q, %d", out, code)
	}

	// Then both restart in turn.
	k.End(unix.SIGKILL)
	d.Restart()
	if !harness.Alive(stays) {
		t.Error("a container ended with its managers")
	}
	harness.KillPid(t, stays)
	k.Begin()
	if s := is(k, "stays", "exited"); s.State.ExitCode != 137 {
		t.Errorf("the exit while dockerd was away: %+v", s)
	}
	for _, name := range []string{"stays", "ends", "comesback"} {
		k.Call("DELETE", "/containers/"+name+"?force=1", nil)
	}
}
