package stdio_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/client/stdio"
)

// start runs a command on a Set's FIFOs as a shim does: it opens its ends without waiting, and
// keeps a reading end of each output.
func start(t *testing.T, p stdio.Paths, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	open := func(path string, mode int) *os.File {
		f, err := os.OpenFile(path, mode, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	var ends []*os.File
	if p.Stdin != "" {
		cmd.Stdin = open(p.Stdin, os.O_RDONLY)
		ends = append(ends, cmd.Stdin.(*os.File))
	}
	for _, o := range []struct {
		path string
		dst  *io.Writer
	}{{p.Stdout, &cmd.Stdout}, {p.Stderr, &cmd.Stderr}} {
		if o.path == "" {
			continue
		}
		keep := open(o.path, os.O_RDONLY|unix.O_NONBLOCK)
		t.Cleanup(func() { _ = keep.Close() })
		f := open(o.path, os.O_WRONLY)
		*o.dst = f
		ends = append(ends, f)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range ends {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return cmd
}

func all() stdio.Want { return stdio.Want{Stdin: true, Stdout: true, Stderr: true} }

func newSet(t *testing.T, want stdio.Want) (*stdio.Set, string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "fifo")
	s, err := stdio.New(root, want)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		noFiles(t, root)
	})
	return s, root
}

func noFiles(t *testing.T, root string) {
	t.Helper()
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestCopy(t *testing.T) {
	s, _ := newSet(t, all())
	cmd := start(t, s.Paths, "sh", "-c", "cat; echo problem >&2")
	if err := s.Started(); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	ended := make(chan struct{})
	s.Copy(stdio.Streams{In: strings.NewReader("in and out"), InEnd: func() { close(ended) }, Out: &out, Err: &errs})
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	<-ended
	if err := s.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out.String() != "in and out" || errs.String() != "problem\n" {
		t.Errorf("out %q, err %q", out.String(), errs.String())
	}
}

// Destinations to which the kernel can move pages, and one to which it cannot.
func TestCopy_BytesArriveUnchanged(t *testing.T) {
	const size = 20 << 20
	data := make([]byte, size)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(source, data, 0o600); err != nil {
		t.Fatal(err)
	}
	file := func(flags int) func(t *testing.T) (*os.File, func() []byte) {
		return func(t *testing.T) (*os.File, func() []byte) {
			path := filepath.Join(t.TempDir(), "sink")
			f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|flags, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			return f, func() []byte {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
		}
	}
	for name, open := range map[string]func(t *testing.T) (*os.File, func() []byte){
		"file":          file(0),
		"appended file": file(os.O_APPEND),
		"pipe": func(t *testing.T) (*os.File, func() []byte) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			got := make(chan []byte, 1)
			go func() {
				b, _ := io.ReadAll(r)
				got <- b
			}()
			return w, func() []byte { return <-got }
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newSet(t, stdio.Want{Stdout: true})
			out, result := open(t)
			cmd := start(t, s.Paths, "cat", source)
			if err := s.Started(); err != nil {
				t.Fatal(err)
			}
			s.Copy(stdio.Streams{Out: out})
			if err := errors.Join(cmd.Wait(), s.Finish(t.Context()), out.Close()); err != nil {
				t.Fatal(err)
			}
			if got := result(); sha256.Sum256(got) != sha256.Sum256(data) {
				t.Errorf("%d bytes arrived of %d, or they differ", len(got), size)
			}
		})
	}
}

// As after `> log 2>&1`: both streams share one open file and its position.
func TestCopy_BothStreamsToOneFile(t *testing.T) {
	const lines = 5000
	s, _ := newSet(t, stdio.Want{Stdout: true, Stderr: true})
	out, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo out; echo err >&2; i=$((i+1)); done", lines)
	cmd := start(t, s.Paths, "sh", "-c", script)
	if err := s.Started(); err != nil {
		t.Fatal(err)
	}
	s.Copy(stdio.Streams{Out: out, Err: out})
	if err := errors.Join(cmd.Wait(), s.Finish(t.Context()), out.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	if outs, errs := bytes.Count(got, []byte("out\n")), bytes.Count(got, []byte("err\n")); outs != lines || errs != lines {
		t.Errorf("%d lines of stdout and %d of stderr are there, of %d each", outs, errs, lines)
	}
}

// The process writes and ends before the reader starts.
func TestCopy_FinishedProcess(t *testing.T) {
	s, _ := newSet(t, stdio.Want{Stdout: true})
	if err := start(t, s.Paths, "echo", "gone").Wait(); err != nil {
		t.Fatal(err)
	}
	if err := s.Started(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	s.Copy(stdio.Streams{Out: &out})
	if err := s.Finish(t.Context()); err != nil || out.String() != "gone\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

// A child that outlives the process holds the pipe open; Finish does not wait for it.
func TestFinish_DoesNotWaitForChildren(t *testing.T) {
	s, _ := newSet(t, stdio.Want{Stdout: true})
	cmd := start(t, s.Paths, "sh", "-c", "sleep 1000 & echo $!; echo ok")
	if err := s.Started(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	s.Copy(stdio.Streams{Out: &out})
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	pid, rest, _ := strings.Cut(out.String(), "\n")
	if rest != "ok\n" {
		t.Errorf("got %q", out.String())
	}
	if err := exec.CommandContext(t.Context(), "kill", pid).Run(); err != nil {
		t.Error(err)
	}
}

func TestCopy_BrokenOutput_IsReported(t *testing.T) {
	s, _ := newSet(t, stdio.Want{Stdout: true})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := start(t, s.Paths, "sh", "-c", "echo a; read x")
	if err := s.Started(); err != nil {
		t.Fatal(err)
	}
	s.Copy(stdio.Streams{Out: w})
	select {
	case <-s.Broken():
	case <-time.After(time.Minute):
		t.Fatal("no error was reported")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err := s.Finish(t.Context()); !errors.Is(err, unix.EPIPE) {
		t.Errorf("got %v, want a broken pipe", err)
	}
}

// Close must end a copy from an input that never comes.
func TestClose_InterruptsInput(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = r.Close(), w.Close() }()
	s, _ := newSet(t, all())
	cmd := start(t, s.Paths, "cat")
	if err := s.Started(); err != nil {
		t.Fatal(err)
	}
	s.Copy(stdio.Streams{In: r, Out: io.Discard, Err: io.Discard})
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Close waits for input")
	}
	if err := cmd.Wait(); err != nil { // its stdin has ended
		t.Error(err)
	}
}

func TestFinish_HonoursContext(t *testing.T) {
	s, _ := newSet(t, stdio.Want{Stdout: true})
	s.Copy(stdio.Streams{Out: io.Discard})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Finish(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
}

func TestAttach(t *testing.T) {
	root := filepath.Join(t.TempDir(), "fifo")
	reserved, err := stdio.Reserve(root, stdio.Want{Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	// As a shim opens them while no client is attached.
	hold := make([]*os.File, 0, 2)
	for _, path := range []string{reserved.Paths.Stdin, reserved.Paths.Stdout} {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		hold = append(hold, f)
	}
	paths := reserved.Paths
	if err := reserved.Close(); err != nil {
		t.Fatal(err)
	}
	if err := stdio.Collect(root); err != nil {
		t.Fatal(err)
	}
	s, err := stdio.Open(paths)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stdio.Open(paths); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("second client: got %v, want failed precondition", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, f := range hold {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := stdio.Collect(root); err != nil {
		t.Fatal(err)
	}
	noFiles(t, root)
	if _, err := stdio.Open(paths); !errdefs.IsNotFound(err) {
		t.Errorf("after the container: got %v, want not found", err)
	}
}

// The remains of a killed client are collected once its container has ended; files in use are not.
func TestCollect(t *testing.T) {
	root := filepath.Join(t.TempDir(), "fifo")
	used, err := stdio.New(root, all())
	if err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(root, "dead")
	if err := os.Mkdir(dead, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dead, "stdout")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	shim, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{2, 1} {
		if err := stdio.Collect(root); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(root); len(left) != want {
			t.Errorf("%d directories, want %d", len(left), want)
		}
		_ = shim.Close()
	}
	if err := used.Close(); err != nil {
		t.Fatal(err)
	}
	noFiles(t, root)
	if err := stdio.Collect(filepath.Join(root, "none")); err != nil {
		t.Errorf("of a missing root: %v", err)
	}
}

func TestSets_InParallel(t *testing.T) {
	root := filepath.Join(t.TempDir(), "fifo")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				s, err := stdio.New(root, all())
				if err != nil {
					t.Error(err)
					return
				}
				if err := errors.Join(stdio.Collect(root), s.Started(), s.Close()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	noFiles(t, root)
}

func TestNew_Modes(t *testing.T) {
	s, root := newSet(t, all())
	for path, want := range map[string]os.FileMode{root: 0o700, filepath.Dir(s.Paths.Stdout): 0o700, s.Paths.Stdout: 0o600} {
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", path, st.Mode(), err, want)
		}
	}
}
