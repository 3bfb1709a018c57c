package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// startAsContainerd starts a daemon as hosts start containerd, with a configuration file of containerd's format.
func startAsContainerd(t *testing.T) *Daemon {
	t.Helper()
	base, err := os.MkdirTemp("", "cleat-it")
	must(t, err)
	config := filepath.Join(base, "containerd.toml")
	must(t, os.WriteFile(config, []byte(`version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[plugins."io.containerd.gc.v1.scheduler"]
mutation_threshold = 50
[plugins."io.containerd.internal.v1.opt"]
path = "/opt/containerd"
`), 0o600))
	return StartAt(t, base, "-c", config)
}

func TestDockerd_OnCleatd(t *testing.T) {
	d := startAsContainerd(t)
	if n := strings.Count(d.Log(), "is ignored"); n != 1 {
		t.Errorf("%d warnings of the configuration, want one:\n%s", n, d.Log())
	}
	k := startDockerd(t, d.Address)
	k.busybox()
	image := k.call("GET", "/images/bb/get", nil)
	k.call("DELETE", "/images/bb", nil)
	k.call("POST", "/images/load", bytes.NewReader(image))

	k.create("one", "echo out; echo err >&2; exit 42", nil)
	if code := k.wait("one"); code != 42 {
		t.Errorf("wait: %d", code)
	}
	if s := k.inspect("one"); s.State.Status != "exited" || s.State.ExitCode != 42 {
		t.Errorf("inspect: %+v", s)
	}
	if stdout, stderr := k.logs("one"); stdout != "out\n" || stderr != "err\n" {
		t.Errorf("logs: %q, %q", stdout, stderr)
	}
	k.call("POST", "/containers/one/start", nil) // a second start
	if code := k.wait("one"); code != 42 {
		t.Errorf("wait after a second start: %d", code)
	}
	k.call("DELETE", "/containers/one", nil)

	k.create("two", trapping(9), nil)
	eventually(t, "the container is ready", func() error {
		if _, _, code := k.exec("two", "test -e /ready"); code != 0 {
			return fmt.Errorf("code %d", code)
		}
		return nil
	}, k.log)
	stdout, stderr, code := k.exec("two", "echo in; echo no >&2; exit 5")
	if stdout != "in\n" || stderr != "no\n" || code != 5 {
		t.Errorf("exec: %q, %q, %d", stdout, stderr, code)
	}
	k.call("POST", "/containers/two/pause", nil)
	if s := k.inspect("two"); !s.State.Paused {
		t.Errorf("inspect of a paused container: %+v", s)
	}
	k.call("POST", "/containers/two/unpause", nil)
	var stats struct {
		PidsStats   struct{ Current uint64 } `json:"pids_stats"`
		MemoryStats struct{ Usage uint64 }   `json:"memory_stats"`
	}
	eventually(t, "stats are present", func() error { // a slow shim is left out
		k.decode("GET", "/containers/two/stats?stream=false&one-shot=true", nil, &stats)
		if stats.PidsStats.Current == 0 || stats.MemoryStats.Usage == 0 {
			return fmt.Errorf("%+v", stats)
		}
		return nil
	}, k.log)
	if top := k.call("GET", "/containers/two/top", nil); !bytes.Contains(top, []byte("sleep")) {
		t.Errorf("top: %s", top)
	}
	k.call("POST", "/containers/two/update", map[string]any{"Memory": 64 << 20, "MemorySwap": -1})
	k.call("POST", "/containers/two/stop?t=30", nil)
	if s := k.inspect("two"); s.State.ExitCode != 9 {
		t.Errorf("stop: %+v", s)
	}
	k.call("POST", "/containers/two/start", nil)
	k.call("POST", "/containers/two/kill", nil)
	if s := k.is("two", "exited"); s.State.ExitCode != 137 {
		t.Errorf("kill: %+v", s)
	}
	k.call("DELETE", "/containers/two", nil)

	k.create("three", "exit 3", map[string]any{"RestartPolicy": map[string]any{"Name": "on-failure", "MaximumRetryCount": 2}})
	if s := k.is("three", "exited"); s.RestartCount != 2 || s.State.ExitCode != 3 {
		t.Errorf("restart policy: %+v", s)
	}
	k.call("DELETE", "/containers/three", nil)
}

func TestDockerd_CleatdAway_ReceivesExit(t *testing.T) {
	d := Start(t)
	k := startDockerd(t, d.Address)
	k.busybox()
	go7 := filepath.Join(t.TempDir(), "go")
	must(t, unix.Mkfifo(go7, 0o600))
	bind := map[string]any{"Binds": []string{go7 + ":/go"}}
	k.create("stays", "while :; do sleep 0.1; done", nil)
	k.create("ends", "read x < /go; exit 7", bind)
	k.create("comesback", "read x < /go; exit 7", map[string]any{
		"Binds": bind["Binds"], "RestartPolicy": map[string]any{"Name": "always"},
	})
	pids := []int{k.inspect("ends").State.Pid, k.inspect("comesback").State.Pid}
	stays := k.inspect("stays").State.Pid

	d.Kill9()
	f, err := os.OpenFile(go7, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteString("a\nb\n")
	must(t, err)
	for _, pid := range pids {
		d.Eventually("the container has ended", gone(pid))
	}
	must(t, f.Close())
	d.Begin()

	if s := k.is("ends", "exited"); s.State.ExitCode != 7 {
		t.Errorf("exit without managers: %+v", s)
	}
	eventually(t, "the other container is restarted", func() error {
		if s := k.inspect("comesback"); s.State.Status != "running" || s.State.Pid == pids[1] || s.RestartCount != 1 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	}, k.log)
	if out, _, code := k.exec("stays", "echo in"); out != "in\n" || code != 0 || k.inspect("stays").State.Pid != stays {
		t.Errorf("exec after a restart: %q, %d", out, code)
	}

	// Then both restart in turn.
	k.end(unix.SIGKILL)
	d.Restart()
	if !alive(stays) {
		t.Error("a container ended with its managers")
	}
	killPid(t, stays)
	k.begin()
	if s := k.is("stays", "exited"); s.State.ExitCode != 137 {
		t.Errorf("the exit while dockerd was away: %+v", s)
	}
	for _, name := range []string{"stays", "ends", "comesback"} {
		k.call("DELETE", "/containers/"+name+"?force=1", nil)
	}
}
