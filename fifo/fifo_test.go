package fifo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newFIFO(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := Create(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestCreateAndRemove(t *testing.T) {
	path := newFIFO(t)
	if err := Create(path, 0o600); err != nil {
		t.Errorf("create again: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"create": Create(file, 0o600), "remove": Remove(file)} {
		if !errors.Is(err, ErrNotFIFO) {
			t.Errorf("%s on a file: %v", name, err)
		}
	}
	if _, err := OpenReader(file); !errors.Is(err, ErrNotFIFO) {
		t.Errorf("open a file: %v", err)
	}
	for range 2 {
		if err := Remove(path); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := Sink(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open a removed FIFO: %v", err)
	}
}

func TestReader_WaitsForFirstWriter(t *testing.T) {
	path := newFIFO(t)
	for range 2 { // a second reader and writer after the first ones closed
		r, err := OpenReader(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Close() }()
		got := make(chan string, 1)
		go func() {
			text, err := io.ReadAll(r)
			if err != nil {
				t.Error(err)
			}
			got <- string(text)
		}()
		w, err := OpenWriter(within(t), path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, "hello"); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if text := <-got; text != "hello" {
			t.Errorf("read %q", text)
		}
	}
}

func TestClose_EndsRead(t *testing.T) {
	r, err := OpenReader(newFIFO(t))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := r.Read(make([]byte, 1))
		ended <- err
	}()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

// A client that cancels its wait leaves nothing behind.
func TestCancelledWaits_LeakNothing(t *testing.T) {
	path := newFIFO(t)
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	for range 50 {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() {
			_, err := OpenWriter(ctx, path)
			ended <- err
		}()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want Canceled", err)
		}
	}
	if n := openFiles(t); n > files {
		t.Errorf("%d descriptors, had %d", n, files)
	}
	awaitGoroutines(t, goroutines)
}

// awaitGoroutines waits until no more than most goroutines are left.
func awaitGoroutines(t *testing.T, most int) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for runtime.NumGoroutine() > most {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d goroutines, had %d", runtime.NumGoroutine(), most)
		}
	}
}

// The ends of a pair exist from the beginning, and no other descriptor stays open.
func TestPairs_OpenOneEndEach(t *testing.T) {
	for name, c := range map[string]struct {
		open        func(string) (hold, child *os.File, err error)
		hold, child int
	}{
		"sink":   {Sink, unix.O_RDONLY, unix.O_WRONLY},
		"source": {Source, unix.O_WRONLY, unix.O_RDONLY},
		"outlet": {Outlet, unix.O_RDONLY, unix.O_RDWR},
	} {
		path := newFIFO(t)
		goroutines, files := runtime.NumGoroutine(), openFiles(t)
		hold, child, err := c.open(path)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n := openFiles(t); n != files+2 {
			t.Errorf("%s: %d descriptors opened, want 2", name, n-files)
		}
		for end, want := range map[*os.File]int{hold: c.hold | unix.O_NONBLOCK, child: c.child} {
			conn, err := end.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			var flags, onExec int
			err = conn.Control(func(fd uintptr) {
				flags, _ = unix.FcntlInt(fd, unix.F_GETFL, 0)
				onExec, _ = unix.FcntlInt(fd, unix.F_GETFD, 0)
			})
			if err != nil || flags&(unix.O_ACCMODE|unix.O_NONBLOCK) != want || onExec&unix.FD_CLOEXEC == 0 {
				t.Errorf("%s: flags %#x and %#x, %v, want %#x and CLOEXEC", name, flags, onExec, err, want)
			}
		}
		_, _ = hold.Close(), child.Close()
		if n := openFiles(t); n != files {
			t.Errorf("%s: %d descriptors left", name, n-files)
		}
		awaitGoroutines(t, goroutines)
	}
}

// A file that is not a FIFO is refused without being opened: opening may have effects, and may
// wait.
func TestOpen_NotFIFO_NotOpened(t *testing.T) {
	tty := newTTY(t)
	for name, open := range map[string]func(string) error{
		"sink":   func(p string) error { _, _, err := Sink(p); return err },
		"source": func(p string) error { _, _, err := Source(p); return err },
		"outlet": func(p string) error { _, _, err := Outlet(p); return err },
		"both":   func(p string) error { _, err := OpenBoth(p); return err },
		"reader": func(p string) error { _, err := OpenReader(p); return err },
		"writer": func(p string) error { _, err := OpenWriter(within(t), p); return err },
		"read":   func(p string) error { _, err := ReadEnd(p); return err },
		"write":  func(p string) error { _, err := WriteEnd(p); return err },
	} {
		if err := open(tty); !errors.Is(err, ErrNotFIFO) {
			t.Errorf("%s: %v", name, err)
		}
		if err := open(tty + "-missing"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: missing: %v", name, err)
		}
	}
}

// newTTY returns the path of a locked pseudo-terminal: opening it returns an error of its own.
func newTTY(t *testing.T) string {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	return "/dev/pts/" + strconv.Itoa(n)
}

// The process keeps writing while clients connect and disconnect, loses nothing and is not killed.
func TestSink_OutlivesClients(t *testing.T) {
	path := newFIFO(t)
	hold, child, err := Sink(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hold.Close() }()
	const lines = 20000
	cmd := exec.CommandContext(within(t), "/bin/busybox", "seq", "1", "20000")
	cmd.Stdout = child
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(child.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("child's end: flags %#x, %v, want blocking", flags, err)
	}
	_ = child.Close()
	var result error
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		result = cmd.Wait()
	}()
	var got bytes.Buffer
	for !over(exited) {
		client(t, path, &got, exited)
	}
	if result != nil {
		t.Errorf("writer: %v", result)
	}
	client(t, path, &got, exited)
	text := strings.Split(strings.TrimSpace(got.String()), "\n")
	if len(text) != lines || text[lines-1] != "20000" {
		t.Errorf("got %d lines, last %q", len(text), text[len(text)-1])
	}
}

func over(exited <-chan struct{}) bool {
	select {
	case <-exited:
		return true
	default:
		return false
	}
}

// client reads some bytes and disconnects; once the writer has exited, it reads the rest.
func client(t *testing.T, path string, to io.Writer, exited <-chan struct{}) {
	t.Helper()
	ended := over(exited)
	r, err := ReadEnd(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if ended {
		_, err = io.Copy(to, r)
	} else {
		_, err = io.CopyN(to, r, 3000)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func TestSource_EndsWithHold(t *testing.T) {
	path := newFIFO(t)
	hold, child, err := Source(path)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(within(t), "/bin/busybox", "cat")
	cmd.Stdin, cmd.Stdout = child, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = child.Close()
	for _, text := range []string{"one ", "two"} { // two clients, one after the other
		w, err := OpenWriter(within(t), path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
	}
	if err := hold.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || out.String() != "one two" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

// The process writes with any reader and without one: consecutive readers get everything, and the
// last one the end of file.
func TestOutlet_OutlivesReaders(t *testing.T) {
	path := newFIFO(t)
	r, child, err := Outlet(path)
	if err != nil {
		t.Fatal(err)
	}
	const lines = 60000
	cmd := exec.CommandContext(within(t), "/bin/busybox", "seq", "1", "60000")
	cmd.Stdout = child
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = child.Close()
	var got bytes.Buffer
	for range 4 {
		if _, err := io.CopyN(&got, r, 10000); err != nil {
			t.Fatal(err)
		}
		_ = r.Close() // no reader for a moment
		if r, err = ReadEnd(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.Copy(&got, r); err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the writer: %v", err)
	}
	words := strings.Fields(got.String())
	if len(words) != lines || words[lines-1] != "60000" {
		t.Errorf("%d lines", len(words))
	}
}

func TestWriteEnd(t *testing.T) {
	path := newFIFO(t)
	if _, err := WriteEnd(path); !errors.Is(err, unix.ENXIO) {
		t.Errorf("without a reader: %v", err)
	}
	hold, child, err := Source(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Close() }()
	again, err := WriteEnd(path)
	if err != nil {
		t.Fatal(err)
	}
	_ = hold.Close()
	if err := unix.SetNonblock(int(child.Fd()), true); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1)
	if n, err := unix.Read(int(child.Fd()), p); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("held: read %d, %v", n, err)
	}
	_ = again.Close()
	if n, err := unix.Read(int(child.Fd()), p); n != 0 || err != nil {
		t.Errorf("not held: read %d, %v", n, err)
	}
}
