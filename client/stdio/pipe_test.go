package stdio_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/client/stdio"
)

func entries(t *testing.T, dir string) int {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestPipe_CarriesEverything(t *testing.T) {
	root := t.TempDir()
	p, err := stdio.NewPipe(root)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("0123456789"), 1<<19)
	sent := make(chan error, 1)
	go func() { sent <- p.Send(t.Context(), bytes.NewReader(want)) }()
	got, err := os.ReadFile(p.Path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	for _, err := range []error{<-sent, p.Close()} {
		if err != nil {
			t.Error(err)
		}
	}
	if n := entries(t, root); n != 0 {
		t.Errorf("%d directories are left", n)
	}
}

// No name exists any more once the reader has opened it: a killed program then leaves nothing.
func TestPipe_ReaderOpens_RemovesFIFO(t *testing.T) {
	root := t.TempDir()
	p, err := stdio.NewPipe(root)
	if err != nil {
		t.Fatal(err)
	}
	if n := entries(t, root); n != 1 {
		t.Errorf("%d directories, want 1", n)
	}
	in, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	sent := make(chan error, 1)
	go func() { sent <- p.Send(t.Context(), in) }()
	r, err := os.Open(p.Path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := feed.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if n := entries(t, root); n != 0 {
		t.Errorf("%d directories, want none", n)
	}
	for _, err := range []error{r.Close(), feed.Close(), <-sent, p.Close()} {
		if err != nil && !errors.Is(err, unix.EPIPE) {
			t.Error(err)
		}
	}
}

func TestPipe_ReaderLeaves_Fails(t *testing.T) {
	p, err := stdio.NewPipe(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() { sent <- p.Send(t.Context(), endless{}) }()
	r, err := os.Open(p.Path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, r, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; !errors.Is(err, unix.EPIPE) {
		t.Errorf("got %v, want EPIPE", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestPipe_WithoutReader(t *testing.T) {
	root := t.TempDir()
	p, err := stdio.NewPipe(root)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Send(ctx, endless{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	if err := stdio.Collect(root); err != nil || entries(t, root) != 1 {
		t.Errorf("a pipe in use was collected, %v", err)
	}
	if err := p.Close(); err != nil || entries(t, root) != 0 {
		t.Errorf("pipe is left: %v", err)
	}
	// A pipe of a killed program.
	if err := os.Mkdir(filepath.Join(root, "dead"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(root, "dead", filepath.Base(p.Path)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := stdio.Collect(root); err != nil || entries(t, root) != 0 {
		t.Errorf("a dead program's pipe is left: %v", err)
	}
}

// A reader of an incomplete stream has left by the end of Close: it never sees an end.
func TestPipe_BrokenInput_WaitsForReader(t *testing.T) {
	p, err := stdio.NewPipe(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("disk on fire")
	sent := make(chan error, 1)
	go func() { sent <- p.Send(t.Context(), &failing{broken}) }()
	r, err := os.OpenFile(p.Path, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-sent; !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	closed := make(chan error, 1)
	go func() { closed <- p.Close() }()
	select {
	case err := <-closed:
		t.Errorf("Close did not wait: %v", err)
	default:
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }
