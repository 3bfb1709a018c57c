package reaper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	runc "github.com/containerd/go-runc"
)

func newReaper(t *testing.T) *Reaper {
	t.Helper()
	if err := SetSubreaper(); err != nil {
		t.Fatal(err)
	}
	r := New()
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestSpawn_DeliversEveryStatus(t *testing.T) {
	r := newReaper(t)
	ctx := within(t)
	const workers, each = 8, 250
	var wg sync.WaitGroup
	errs := make(chan error, workers)
	for w := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range each {
				want := (w*each + i) % 200
				c, err := r.Spawn(exec.Command("/bin/busybox", "sh", "-c", "exit "+strconv.Itoa(want)))
				if err != nil {
					errs <- err
					return
				}
				if e, err := c.Wait(ctx); err != nil || e.Status != want || e.Pid != c.Pid() {
					errs <- fmt.Errorf("got %+v, %w, want status %d", e, err, want)
					return
				}
			}
		}()
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if n := len(r.children); n != 0 {
		t.Errorf("%d children still registered", n)
	}
}

// Children that double-fork: the middle process writes the pid and dies, the reaper gets the
// grandchild, which may be dead long before it is claimed.
func TestCapture_FindsOrphans(t *testing.T) {
	r := newReaper(t)
	ctx := within(t)
	dir := t.TempDir()
	for i := range 200 {
		file := filepath.Join(dir, strconv.Itoa(i))
		gateR, gateW, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		c := r.Capture()
		cmd := exec.Command("/bin/busybox", "sh", "-c", "(read line; exit 7) <&3 & echo $! > "+file)
		cmd.ExtraFiles = []*os.File{gateR}
		parent, err := r.Spawn(cmd)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parent.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		early := i%2 == 0 // dead before it is claimed, or not
		if early {
			_ = gateW.Close()
			awaitCaptured(ctx, t, c, pid)
		}
		child, err := c.Claim(pid)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		_ = gateR.Close()
		if !early {
			_ = gateW.Close()
		}
		if e, err := child.Wait(ctx); err != nil || e.Status != 7 {
			t.Fatalf("orphan %d: %+v, %v", i, e, err)
		}
	}
	if len(r.captures) != 0 || len(r.children) != 0 {
		t.Errorf("left behind: %d captures, %d children", len(r.captures), len(r.children))
	}
}

func awaitCaptured(ctx context.Context, t *testing.T, c *Capture, pid int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		c.reaper.mu.Lock()
		_, ok := c.exits[pid]
		c.reaper.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("process %d was not captured", pid)
		}
	}
}

func TestClaim_NotAChild(t *testing.T) {
	r := newReaper(t)
	c := r.Capture()
	defer c.Close()
	for _, pid := range []int{1, os.Getpid(), 1 << 30, 0, -1} {
		if _, err := c.Claim(pid); !errors.Is(err, ErrNotChild) {
			t.Errorf("claim %d: %v, want ErrNotChild", pid, err)
		}
	}
}

func TestSignal(t *testing.T) {
	r := newReaper(t)
	c, err := r.Spawn(exec.Command("/bin/busybox", "sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if e, err := c.Wait(within(t)); err != nil || e.Status != 128+15 {
		t.Fatalf("got %+v, %v, want 143", e, err)
	}
	if err := c.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after the exit: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if e, err := c.Wait(ctx); err != nil || e.Status != 143 {
		t.Errorf("known exit with cancelled context: %+v, %v", e, err)
	}
}

func TestProcessMonitor(t *testing.T) {
	r := newReaper(t)
	for name, start := range map[string]func(*exec.Cmd) (chan runc.Exit, error){
		"Start": r.Start, "StartLocked": r.StartLocked,
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			cmd := exec.Command("/bin/busybox", "sh", "-c", "echo hello; exit 3")
			cmd.Stdout = &out
			exits, err := start(cmd)
			if err != nil {
				t.Fatal(err)
			}
			status, err := r.Wait(cmd, exits)
			if err != nil || status != 3 || out.String() != "hello\n" {
				t.Errorf("status %d, %v, output %q", status, err, out.String())
			}
			if _, err := start(exec.Command("/nowhere")); err == nil {
				t.Error("a missing program was started")
			}
		})
	}
}

func TestProcessMonitor_KillsWhenContextEnds(t *testing.T) {
	r := newReaper(t)
	ctx, cancel := context.WithCancel(within(t))
	cmd := exec.CommandContext(ctx, "/bin/busybox", "sleep", "1000")
	exits, err := r.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if status, err := r.Wait(cmd, exits); err != nil || status != 137 {
		t.Errorf("status %d, %v, want 137", status, err)
	}
	if _, err := r.Start(exec.CommandContext(ctx, "/bin/busybox", "true")); !errors.Is(err, context.Canceled) {
		t.Errorf("start with a context that has ended: %v", err)
	}
	if n := len(r.children); n != 0 {
		t.Errorf("%d children still registered", n)
	}
}

func TestClose(t *testing.T) {
	r := New()
	cmd := exec.Command("/bin/busybox", "sleep", "1000")
	exits, err := r.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Wait(cmd, exits); !errors.Is(err, ErrClosed) {
		t.Errorf("wait on a closed reaper: %v", err)
	}
	if _, err := r.Spawn(exec.Command("/bin/true")); !errors.Is(err, ErrClosed) {
		t.Errorf("spawn on a closed reaper: %v", err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func TestNewOwn_IgnoresOtherChildren(t *testing.T) {
	r := NewOwn()
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			c, err := r.Spawn(exec.Command("/bin/sh", "-c", fmt.Sprint("exit ", i)))
			if err != nil {
				t.Error(err)
				return
			}
			if e, err := c.Wait(t.Context()); err != nil || e.Status != i {
				t.Errorf("%+v, %v; want %d", e, err, i)
			}
		})
		wg.Go(func() {
			err := exec.Command("/bin/sh", "-c", fmt.Sprint("exit ", i)).Run()
			var exit *exec.ExitError
			if code := 0; err != nil && (!errors.As(err, &exit) || exit.ExitCode() != i) || err == nil && i != code {
				t.Errorf("started by os/exec: %v, want %d", err, i)
			}
		})
	}
	wg.Wait()
}

// TestProcessMonitor_Wait_ClosesTheHandle runs without a garbage collection, as an idle process does.
func TestProcessMonitor_Wait_ClosesTheHandle(t *testing.T) {
	r := newReaper(t)
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	handles := func() (n int) {
		t.Helper()
		list, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range list {
			if to, err := os.Readlink(fd); err == nil && strings.Contains(to, "pidfd") {
				n++
			}
		}
		return n
	}
	before := handles()
	for range 20 {
		cmd := exec.Command("/bin/busybox", "true")
		exits, err := r.Start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		if status, err := r.Wait(cmd, exits); err != nil || status != 0 {
			t.Fatalf("status %d, %v", status, err)
		}
	}
	if after := handles(); after > before {
		t.Errorf("%d handles are open, %d before", after, before)
	}
}
