package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/console"
)

func TestStdout_100MB_IsByteExact(t *testing.T) {
	d := Start(t)
	d.Busybox()
	const size = 100 << 20
	// Every line differs, so that a missing, repeated or moved piece changes the sum.
	script := fmt.Sprintf("seq 1 20000000 | head -c %d", size)
	cmd := d.Command("run", "--rm", "busybox", "sh", "-c", script)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	got := sha256.New()
	n, err := io.Copy(got, out)
	must(t, err)
	must(t, cmd.Wait())

	want := sha256.New()
	w := &bounded{w: want, left: size}
	for i := 1; w.left > 0; i++ {
		_, err := w.Write(append(strconv.AppendInt(nil, int64(i), 10), '\n'))
		must(t, err)
	}
	if n != size || hex.EncodeToString(got.Sum(nil)) != hex.EncodeToString(want.Sum(nil)) {
		t.Fatalf("%d bytes of %d, or different ones", n, size)
	}
}

// bounded accepts as many bytes as are left.
type bounded struct {
	w    io.Writer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	p = p[:min(len(p), b.left)]
	b.left -= len(p)
	return b.w.Write(p)
}

func TestStdin_ReachesContainerCompletely(t *testing.T) {
	d := Start(t)
	d.Busybox()
	input := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB: more than the buffer of a pipe
	sum := sha256.Sum256([]byte(input))
	out, stderr, code := d.TryInput(input, "run", "--rm", "-i", "busybox", "sha256sum")
	if code != 0 || !strings.HasPrefix(out, hex.EncodeToString(sum[:])) {
		t.Fatalf("code %d, %q, %q", code, out, stderr)
	}
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	out, stderr, code = d.TryInput(input, "exec", "-i", "c", "sha256sum")
	if code != 0 || !strings.HasPrefix(out, hex.EncodeToString(sum[:])) {
		t.Fatalf("exec: code %d, %q, %q", code, out, stderr)
	}
	// Without -i the container does not wait for input.
	if out, _, code := d.TryInput("x", "run", "--rm", "busybox", "cat"); code != 0 || out != "" {
		t.Fatalf("without -i: code %d, %q", code, out)
	}
}

func TestTerminal_EchoesAndResizes(t *testing.T) {
	d := Start(t)
	d.Busybox()
	master, cmd := d.terminal("run", "--rm", "-it", "busybox", "sh")
	screen := newScreen(master)
	screen.expect(t, "# ")
	screen.send(t, "stty size; tty; echo e''nd\n")
	screen.expect(t, "33 91")
	screen.expect(t, "/dev/pts/0")
	screen.expect(t, "end")
	must(t, master.Resize(console.WinSize{Width: 70, Height: 20}))
	eventually(t, "the new size reaches the container", func() error {
		screen.send(t, "stty size; echo do''ne\n")
		screen.expect(t, "done")
		if !strings.Contains(screen.text(), "20 70") {
			return errors.New(screen.text())
		}
		return nil
	}, d.Log)
	screen.send(t, "exit 9\n")
	if code := exitCode(t, cmd.Wait()); code != 9 {
		t.Errorf("code %d; screen:\n%s", code, screen.text())
	}
}

// TestTerminal_HangUp_EndsClientOnly closes the terminal, as a lost connection does. The client ends, the container
// keeps running, and another terminal can attach to it.
func TestTerminal_HangUp_EndsClientOnly(t *testing.T) {
	d := Start(t)
	d.Busybox()
	master, cmd := d.terminal("run", "--rm", "-it", "--name", "c", "busybox", "sh")
	readUntil(t, master, "# ")
	must(t, master.Close())
	if code := exitCode(t, cmd.Wait()); code != 128+int(syscall.SIGHUP) {
		t.Errorf("run ended with code %d", code)
	}
	d.status("c", "running")
	master, cmd = d.terminal("attach", "c")
	screen := newScreen(master)
	screen.send(t, "echo again\n")
	screen.expect(t, "again\r\nagain")
	exec, inside := d.terminal("exec", "-it", "c", "sh")
	readUntil(t, exec, "# ")
	must(t, exec.Close())
	if code := exitCode(t, inside.Wait()); code != 128+int(syscall.SIGHUP) {
		t.Errorf("exec ended with code %d", code)
	}
	d.Eventually("exec's process ends", func() error {
		pids, err := d.Client().Pids(t.Context(), "c")
		if err == nil && len(pids) != 1 {
			err = fmt.Errorf("processes %v are left", pids)
		}
		return err
	})
	screen.send(t, "exit 3\n")
	if code := exitCode(t, cmd.Wait()); code != 3 {
		t.Errorf("attach ended with code %d; screen:\n%s", code, screen.text())
	}
}

// readUntil reads until text appears. Unlike a screen it leaves no reader, which would keep a closed terminal open.
func readUntil(t *testing.T, r io.Reader, text string) {
	t.Helper()
	var shown strings.Builder
	for buf := make([]byte, 4096); !strings.Contains(shown.String(), text); {
		n, err := r.Read(buf)
		must(t, err)
		shown.Write(buf[:n])
	}
}

// terminal starts the CLI on its own terminal of 91 columns and 33 lines.
func (d *Daemon) terminal(args ...string) (console.Console, *exec.Cmd) {
	d.t.Helper()
	master, path, err := console.NewPty()
	must(d.t, err)
	d.t.Cleanup(func() { master.Close() })
	must(d.t, master.Resize(console.WinSize{Width: 91, Height: 33}))
	tty, err := os.OpenFile(path, os.O_RDWR, 0)
	must(d.t, err)
	defer tty.Close()
	cmd := d.Command(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	setctty(cmd)
	must(d.t, cmd.Start())
	return master, cmd
}

// screen collects the output on a terminal.
type screen struct {
	master io.ReadWriter
	mu     sync.Mutex
	grown  *sync.Cond
	shown  string
	seen   int // expect searches after this offset
	ended  bool
}

func newScreen(master io.ReadWriter) *screen {
	s := &screen{master: master}
	s.grown = sync.NewCond(&s.mu)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			s.mu.Lock()
			s.shown += string(buf[:n])
			s.ended = err != nil
			s.grown.Broadcast()
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown
}

func (s *screen) send(t *testing.T, text string) {
	t.Helper()
	_, err := s.master.Write([]byte(text))
	must(t, err)
}

// expect waits until the screen shows text, after the previously expected text.
func (s *screen) expect(t *testing.T, text string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if i := strings.Index(s.shown[s.seen:], text); i >= 0 {
			s.seen += i + len(text)
			return
		}
		if s.ended {
			t.Fatalf("the terminal closed before it showed %q:\n%s", text, s.shown)
		}
		s.grown.Wait()
	}
}

// exitCode returns the code in an error of Wait.
func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	must(t, err)
	return 0
}

func TestExec_InParallel_ReturnsOwnCodes(t *testing.T) {
	d := Start(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			out, stderr, code := d.Try("exec", "c", "sh", "-c", fmt.Sprintf("echo %d; exit %d", i, 100+i))
			if out != fmt.Sprintln(i) || code != 100+i {
				t.Errorf("exec %d: %q, %q, code %d", i, out, stderr, code)
			}
		})
	}
	wg.Wait()
}
