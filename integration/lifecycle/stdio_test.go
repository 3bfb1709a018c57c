package lifecycle

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/console"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

func TestStdout_100MB_IsByteExact(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	const size = 100 << 20
	// Every line differs, so that a missing, repeated or moved piece changes the sum.
	script := fmt.Sprintf("seq 1 20000000 | head -c %d", size)
	cmd := d.Command("run", "--rm", "busybox", "sh", "-c", script)
	out, err := cmd.StdoutPipe()
	harness.Must(t, err)
	harness.Must(t, cmd.Start())
	got := sha256.New()
	n, err := io.Copy(got, out)
	harness.Must(t, err)
	harness.Must(t, cmd.Wait())

	want := sha256.New()
	w := &bounded{w: want, left: size}
	for i := 1; w.left > 0; i++ {
		_, err := w.Write(append(strconv.AppendInt(nil, int64(i), 10), '\n'))
		harness.Must(t, err)
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
	t.Parallel()
	d := harness.Start(t)
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
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	master, cmd := openTerminal(d, "run", "--rm", "-it", "busybox", "sh")
	screen := harness.NewScreen(master)
	expect(screen, t, "# ")
	send(screen, t, "stty size; tty; echo e''nd\n")
	expect(screen, t, "33 91")
	expect(screen, t, "/dev/pts/0")
	expect(screen, t, "end")
	harness.Must(t, master.Resize(console.WinSize{Width: 70, Height: 20}))
	harness.Eventually(t, "the new size reaches the container", func() error {
		send(screen, t, "stty size; echo do''ne\n")
		expect(screen, t, "done")
		if !strings.Contains(screen.Text(), "20 70") {
			return errors.New(screen.Text())
		}
		return nil
	}, d.Log)
	send(screen, t, "exit 9\n")
	if code := harness.ExitCode(t, cmd.Wait()); code != 9 {
		t.Errorf("code %d; screen:\n%s", code, screen.Text())
	}
}

// TestTerminal_HangUp_EndsClientOnly closes the terminal, as a lost connection does. The client ends, the container
// keeps running, and another terminal can attach to it.
func TestTerminal_HangUp_EndsClientOnly(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	master, cmd := openTerminal(d, "run", "--rm", "-it", "--name", "c", "busybox", "sh")
	readUntil(t, master, "# ")
	harness.Must(t, master.Close())
	if code := harness.ExitCode(t, cmd.Wait()); code != 128+int(syscall.SIGHUP) {
		t.Errorf("run ended with code %d", code)
	}
	d.Status("c", "running")
	master, cmd = openTerminal(d, "attach", "c")
	screen := harness.NewScreen(master)
	send(screen, t, "echo again\n")
	expect(screen, t, "again\r\nagain")
	exec, inside := openTerminal(d, "exec", "-it", "c", "sh")
	readUntil(t, exec, "# ")
	harness.Must(t, exec.Close())
	if code := harness.ExitCode(t, inside.Wait()); code != 128+int(syscall.SIGHUP) {
		t.Errorf("exec ended with code %d", code)
	}
	d.Eventually("exec's process ends", func() error {
		pids, err := fixture.Client(d).Pids(t.Context(), "c")
		if err == nil && len(pids) != 1 {
			err = fmt.Errorf("processes %v are left", pids)
		}
		return err
	})
	send(screen, t, "exit 3\n")
	if code := harness.ExitCode(t, cmd.Wait()); code != 3 {
		t.Errorf("attach ended with code %d; screen:\n%s", code, screen.Text())
	}
}

// readUntil reads until text appears. Unlike a screen it leaves no reader, which would keep a closed terminal open.
func readUntil(t *testing.T, r io.Reader, text string) {
	t.Helper()
	var shown strings.Builder
	for buf := make([]byte, 4096); !strings.Contains(shown.String(), text); {
		n, err := r.Read(buf)
		harness.Must(t, err)
		shown.Write(buf[:n])
	}
}

func send(s *harness.Screen, t *testing.T, text string) {
	t.Helper()
	_, err := s.Master.Write([]byte(text))
	harness.Must(t, err)
}

func TestExec_InParallel_ReturnsOwnCodes(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
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
