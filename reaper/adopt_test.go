package reaper

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// stranger starts a process that is not a child of this one: its parent hands it to another subreaper,
// or to pid 1, and ends. gate controls its end: it executes what is written there.
func stranger(t *testing.T, script string) (pid int, gate *os.File) {
	t.Helper()
	// This test may not be a subreaper, or the process would be given back to it.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pid")
	cmd := exec.Command("/bin/busybox", "sh", "-c", "("+script+") <&3 & echo $! > "+file)
	cmd.ExtraFiles = []*os.File{r}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	t.Cleanup(func() { _ = w.Close() }) // ends the reader
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		t.Fatal(err)
	}
	return pid, w
}

func startTime(t *testing.T, pid int) uint64 {
	t.Helper()
	at, err := StartTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestAdopt_ReportsEveryStatus(t *testing.T) {
	for want, script := range map[int]string{
		0:   "read line; exit 0",
		7:   "read line; exit 7",
		255: "read line; exit 255",
		137: "read line; exec /bin/busybox sh -c 'kill -9 $$'",
		143: "read line; exec /bin/busybox sh -c 'kill -15 $$'",
	} {
		t.Run(strconv.Itoa(want), func(t *testing.T) {
			pid, gate := stranger(t, script)
			r := New()
			defer func() { _ = r.Close() }()
			c, err := r.Adopt(pid, startTime(t, pid))
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-c.Done():
				t.Fatal("it ended before its time")
			default:
			}
			if _, err := gate.WriteString("go\n"); err != nil {
				t.Fatal(err)
			}
			e, err := c.Wait(within(t))
			if err != nil || e.Status != want || e.Pid != pid || e.At.IsZero() {
				t.Errorf("%+v, %v, want status %d", e, err, want)
			}
			if err := c.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
				t.Errorf("signal after the exit: %v", err)
			}
		})
	}
}

func TestAdopt_DeliversSignals(t *testing.T) {
	pid, _ := stranger(t, "exec /bin/busybox sleep 1000")
	r := New()
	defer func() { _ = r.Close() }()
	c, err := r.Adopt(pid, startTime(t, pid))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e, err := c.Wait(within(t)); err != nil || e.Status != 137 {
		t.Errorf("%+v, %v, want 137", e, err)
	}
}

// The status of a process that is dead and not collected yet is available: from /proc, and by the
// pidfd once it is collected.
func TestAdopt_DeadProcess(t *testing.T) {
	for _, collected := range []bool{false, true} {
		cmd := exec.Command("/bin/busybox", "sh", "-c", "exit 23")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pid := cmd.Process.Pid
		var info unix.Siginfo
		for errors.Is(unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
		}
		at := startTime(t, pid)
		h, err := openHandle(pid, at)
		if err != nil {
			t.Fatal(err)
		}
		if ws, ok := h.uncollected(pid); !ok || statusOf(ws) != 23 {
			t.Errorf("by /proc: %v, %v", ws, ok)
		}
		if _, ok := h.collected(); ok {
			t.Error("the kernel reports it as collected")
		}
		if collected {
			_ = cmd.Wait()
			if ws, ok := h.collected(); !ok || statusOf(ws) != 23 {
				t.Errorf("by the pidfd: %v, %v", ws, ok)
			}
			if _, ok := h.uncollected(pid); ok {
				t.Error("/proc showed a process that was collected")
			}
			if _, err := openHandle(pid, at); !errors.Is(err, os.ErrProcessDone) {
				t.Errorf("open again: %v", err)
			}
		}
		if status, ok := h.wait(pid, nil); !ok || status != 23 {
			t.Errorf("waited: %d, %v", status, ok)
		}
		_ = h.file.Close()
		_ = cmd.Wait()
	}
}

func TestAdopt_OtherProcess_IsRefused(t *testing.T) {
	r := New()
	defer func() { _ = r.Close() }()
	own := os.Getpid()
	for pid, at := range map[int]uint64{own: startTime(t, own) + 1, 1 << 22: 1} {
		if _, err := r.Adopt(pid, at); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("adopt %d: %v, want ErrProcessDone", pid, err)
		}
	}
	if len(r.adopted) != 0 {
		t.Error("a process was adopted")
	}
}

// Close ends the waiting, leaves the process alone, and reports no exit.
func TestClose_KeepsAdoptedProcesses(t *testing.T) {
	pid, _ := stranger(t, "read line")
	files := len(openFiles(t))
	r := New()
	c, err := r.Adopt(pid, startTime(t, pid))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-c.Done():
		t.Error("an exit was reported")
	default:
	}
	if err := unix.Kill(pid, 0); err != nil {
		t.Errorf("the process: %v", err)
	}
	if n := len(openFiles(t)); n > files {
		t.Errorf("%d descriptors, had %d", n, files)
	}
	if _, err := r.Adopt(pid, startTime(t, pid)); !errors.Is(err, ErrClosed) {
		t.Errorf("adopt on a closed reaper: %v", err)
	}
}

func openFiles(t *testing.T) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func TestAtLeast(t *testing.T) {
	for release, want := range map[string]bool{
		"6.15.0": true, "6.15": true, "6.15-rc1": true, "6.18.44-fc-v657": true, "7.0.1": true, "10.2": true,
		"6.14.9": false, "6.9": false, "5.15.0-91-generic": false, "6": false, "": false, "six.15": false,
	} {
		if got := atLeast(release, 6, 15); got != want {
			t.Errorf("%q: %v", release, got)
		}
	}
}

func TestStatFields(t *testing.T) {
	for text, want := range map[string]string{
		"12 (sh) S 1 12": "S", "12 (a) R (b)) Z 1": "Z", "12 () ) (x) T": "T",
	} {
		if got := statFields(text); len(got) == 0 || got[0] != want {
			t.Errorf("%q: %q", text, got)
		}
	}
	if got := statFields(""); len(got) != 0 {
		t.Errorf("nothing: %q", got)
	}
}
