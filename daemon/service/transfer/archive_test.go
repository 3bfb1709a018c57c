package transfer

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestOpenArchive(t *testing.T) {
	dir := t.TempDir()
	file, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.WriteFile(file, []byte("archive"), 0o600), unix.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = os.WriteFile(pipe, []byte("piped"), 0) // the reader's result is checked
	}()
	for path, want := range map[string]string{file: "archive", pipe: "piped"} {
		f, err := openArchive(t.Context(), path, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", path, got, err)
		}
	}
	for path, class := range map[string]func(error) bool{
		"":                 errdefs.IsInvalidArgument,
		"file":             errdefs.IsInvalidArgument,
		dir:                errdefs.IsInvalidArgument,
		"/dev/zero":        errdefs.IsInvalidArgument,
		dir + "/none":      errdefs.IsNotFound,
		file + "/under":    errdefs.IsNotFound,
		"/proc/self/mem/x": errdefs.IsNotFound,
	} {
		if f, err := openArchive(t.Context(), path, nil); !class(err) {
			t.Errorf("%q: got %v, %v", path, f, err)
		}
	}
}

// A client that leaves ends the reading, whether it wrote, and whatever it has open.
func TestOpenArchive_ClientLeft(t *testing.T) {
	for name, written := range map[string]string{"no writer": "-", "a silent writer": "", "a writer in the middle": "half"} {
		pipe := filepath.Join(t.TempDir(), name)
		if err := unix.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		f, err := openArchive(ctx, pipe, nil)
		if err != nil {
			t.Fatal(err)
		}
		if written != "-" {
			w, err := os.OpenFile(pipe, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = w.Close() }()
			if _, err := w.WriteString(written); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(f, make([]byte, len(written))); err != nil {
				t.Fatal(err)
			}
		}
		go cancel()
		if n, err := f.Read(make([]byte, 1)); n != 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: read %d bytes, %v", name, n, err)
		}
		if err := f.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}
