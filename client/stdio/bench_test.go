package stdio_test

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/client/stdio"
)

// BenchmarkOutput measures how fast a process's output is copied to /dev/null; compare with
// BenchmarkBareFIFO, where cat replaces a Set.
func BenchmarkOutput(b *testing.B) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	b.SetBytes(benchBytes)
	for b.Loop() {
		s, err := stdio.New(b.TempDir(), stdio.Want{Stdout: true})
		if err != nil {
			b.Fatal(err)
		}
		cmd := writer(b, s.Paths.Stdout)
		if err := s.Started(); err != nil {
			b.Fatal(err)
		}
		s.Copy(stdio.Streams{Out: null})
		for _, err := range []error{cmd.Wait(), s.Finish(b.Context()), s.Close()} {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkBareFIFO(b *testing.B) {
	b.SetBytes(benchBytes)
	for b.Loop() {
		path := b.TempDir() + "/fifo"
		if err := unix.Mkfifo(path, 0o600); err != nil {
			b.Fatal(err)
		}
		cat := exec.CommandContext(b.Context(), "busybox", "cat", path)
		if err := cat.Start(); err != nil {
			b.Fatal(err)
		}
		if err := writer(b, path).Wait(); err != nil {
			b.Fatal(err)
		}
		if err := cat.Wait(); err != nil {
			b.Fatal(err)
		}
	}
}

const benchBytes = 16384 * 65536

func writer(b *testing.B, path string) *exec.Cmd {
	b.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(b.Context(), "busybox", "dd", "if=/dev/zero", "bs=65536", "count=16384")
	cmd.Stdout = f
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	return cmd
}
