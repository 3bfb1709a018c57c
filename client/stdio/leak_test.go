package stdio_test

import (
	"bytes"
	"io"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/cleatproject/cleat/client/stdio"
)

func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func TestSet_LeaksNothing(t *testing.T) {
	root := t.TempDir()
	once := func() {
		s, err := stdio.New(root, all())
		if err != nil {
			t.Fatal(err)
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := start(t, s.Paths, "true")
		if err := s.Started(); err != nil {
			t.Fatal(err)
		}
		s.Copy(stdio.Streams{In: r, Out: &bytes.Buffer{}, Err: io.Discard})
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{s.Finish(t.Context()), s.Close(), r.Close(), w.Close()} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	once()
	files, routines := openFiles(t), runtime.NumGoroutine()
	const rounds = 20
	for range rounds {
		once()
	}
	// start keeps two reading ends per round, as a shim does, until the test ends.
	if now := openFiles(t) - 2*rounds; now > files {
		t.Errorf("%d open files, %d before", now, files)
	}
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for runtime.NumGoroutine() > routines { // those of os/exec end a moment later
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), routines)
		}
	}
}
