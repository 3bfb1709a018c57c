package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/internal/durable"
	"github.com/cleatproject/cleat/internal/inject"
)

func TestStore_EveryStepFails(t *testing.T) {
	count := &steps{}
	if err := run(ramDir(t), count, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if count.n == 0 {
		t.Fatal("no step is counted")
	}
	for n := 1; n <= count.n; n++ {
		for how, stop := range map[string]func(at int) error{
			"once":    func(at int) error { return map[bool]error{true: syscall.EIO}[at == n] },
			"forever": func(int) error { return syscall.ENOSPC },
		} {
			dir := ramDir(t)
			var lines []string
			c := &steps{at: n, stop: stop}
			err := run(dir, c, func(l string) { lines = append(lines, l) })
			if err == nil && how == "forever" {
				t.Errorf("step %d failed without an error", n)
			}
			p := parsePromises(lines)
			if c.rolledBack {
				p.offset = p.synced
			}
			checkStore(t, fmt.Sprintf("step %d, %s", n, how), dir, p)
		}
	}
}

// crashEnv passes the directory and the step to a copy of the test binary that will be killed.
const crashEnv = "CLEAT_TEST_CRASH"

func TestStore_KilledAtEveryStep(t *testing.T) {
	count := &steps{}
	if err := run(ramDir(t), count, func(string) {}); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= count.n; n++ {
		dir := ramDir(t)
		lines := killedAt(t, "story", dir, n)
		checkStore(t, fmt.Sprintf("killed at step %d", n), dir, parsePromises(lines))
	}
}

// killedAt runs a copy of this binary, and returns its output until it died at a step.
func killedAt(t *testing.T, what, dir string, n int) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d", crashEnv, what, dir, n))
	out, err := cmd.Output()
	exit := new(exec.ExitError)
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("step %d: the process was not killed: %v\n%s", n, err, out)
	}
	return strings.Split(string(out), "\n")
}

// TestCrashChild is the process that is killed; in a normal run it does nothing.
func TestCrashChild(t *testing.T) {
	what, rest, ok := strings.Cut(os.Getenv(crashEnv), " ")
	if !ok {
		return
	}
	dir, at, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(at)
	if err != nil {
		t.Fatal(err)
	}
	c := &steps{at: n, stop: func(int) error { return syscall.Kill(os.Getpid(), syscall.SIGKILL) }}
	if what == "story" {
		err = run(dir, c, func(l string) { fmt.Println(l) })
	} else {
		_, err = open(dir, Options{FS: c.fs()}, "boot-2", testPace())
	}
	t.Fatalf("not killed: %v", err)
}

// checkStore checks the state after an interrupted story: as after the process's death, and as after a
// power loss that turned all unsynced data into rubbish.
func checkStore(t *testing.T, when, dir string, p promises) {
	t.Helper()
	lost := filepath.Join(ramDir(t), "lost")
	if _, err := os.Stat(dir); err == nil {
		if err := os.CopyFS(lost, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		rubbish(t, lost)
	}
	checkOpen(t, when, dir, "boot-1", p, p.offset)
	checkOpen(t, when+", then power lost", lost, "boot-2", p, p.synced)
}

// rubbish overwrites the bytes of ingests that no synced checkpoint covers.
func rubbish(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "ingest", "*", dataFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		var from int64
		if raw, err := os.ReadFile(filepath.Join(filepath.Dir(path), syncedFile)); err == nil {
			if c, err := parseCheckpoint(raw); err == nil {
				from = c.Offset
			}
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if fi, err := f.Stat(); err == nil && fi.Size() > from {
			_, err = f.WriteAt(make([]byte, fi.Size()-from), from)
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// checkOpen opens the store and checks that nothing unverified is visible, no acknowledged
// data is lost, every ingest can be completed, and no file is stray.
func checkOpen(t *testing.T, when, dir, boot string, p promises, offsets map[string]int) {
	t.Helper()
	ctx := context.Background()
	s, err := open(dir, Options{FS: durable.OS{}}, boot, testPace())
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	damaged, err := s.Reindex(ctx, ReindexOptions{}, func(Info) error { return nil })
	if err != nil || len(damaged) > 0 {
		t.Errorf("%s: damaged: %+v, %v", when, damaged, err)
	}
	for ref, present := range p.blobs {
		if _, err := s.Info(ctx, digest.FromBytes(full(ref))); present && err != nil {
			t.Errorf("%s: blob %s was promised: %v", when, ref, err)
		}
	}
	list, err := s.ListStatuses(ctx, "")
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	var refs []string
	for _, st := range list {
		refs = append(refs, st.Ref)
	}
	for ref, offset := range offsets {
		_, err := s.Info(ctx, digest.FromBytes(full(ref)))
		if err == nil {
			continue // it became a blob before it was acknowledged
		}
		if st, err := s.Status(ctx, ref); err != nil || st.Offset < int64(offset) {
			t.Errorf("%s: ingest %s had %d bytes: %+v, %v", when, ref, offset, st, err)
		}
	}
	checkFiles(t, when, dir, refs)
	for _, ref := range refs {
		complete(t, when, s, ref)
	}
	checkFiles(t, when+", completed", dir, nil)
}

// checkFiles finds files that belong neither to a blob nor to one of the ingests.
func checkFiles(t *testing.T, when, dir string, refs []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() && filepath.Base(filepath.Dir(path)) != "ingest" {
			return err
		}
		part := strings.Split(strings.TrimPrefix(path, dir+"/"), "/")
		switch {
		case part[0] == "blobs" && len(part) == 3 && digest.NewDigestFromEncoded(digest.Algorithm(part[1]), part[2]).Validate() == nil:
		case part[0] == "ingest" && slices.ContainsFunc(refs, func(ref string) bool { return digest.FromString(ref).Encoded() == part[1] }) &&
			(len(part) == 2 || slices.Contains([]string{dataFile, metaFile, stateFile, syncedFile}, part[2])):
		default:
			t.Errorf("%s: stray file %s", when, path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// complete resumes an ingest at its offset, checks its digest, and commits it.
func complete(t *testing.T, when string, s *Store, ref string) {
	t.Helper()
	ctx := context.Background()
	w, err := s.Writer(ctx, ref, WriterOptions{})
	if err != nil {
		t.Errorf("%s: resume %s: %v", when, ref, err)
		return
	}
	defer func() { _ = w.Close() }()
	off := w.Status().Offset
	if got, want := w.Digest(), digest.FromBytes(full(ref)[:off]); got != want {
		t.Errorf("%s: the digest of %s at %d is %s, want %s", when, ref, off, got, want)
	}
	_, err = w.Write(full(ref)[off:])
	if err == nil {
		err = w.Commit(ctx, 0, "")
	}
	if err != nil && !errdefs.IsAlreadyExists(err) {
		t.Errorf("%s: complete %s from %d: %v", when, ref, off, err)
	}
}

// The recovery of ingests after a power loss, killed at each of its steps, can be repeated.
func TestOpen_KilledDuringRecovery(t *testing.T) {
	prepare := func() string {
		dir := ramDir(t)
		if err := run(dir, &steps{}, func(string) {}); err != nil {
			t.Fatal(err)
		}
		rubbish(t, dir)
		if err := os.WriteFile(filepath.Join(s0ingest(dir, "e"), durable.TempPrefix+"x"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(s0ingest(dir, "broken off"), 0o700); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	count := &steps{}
	if _, err := open(prepare(), Options{FS: count.fs()}, "boot-2", testPace()); err != nil {
		t.Fatal(err)
	}
	if count.n == 0 {
		t.Fatal("no step is counted")
	}
	p := parsePromises([]string{"blob a", "blob c", "synced e 100000"})
	for n := 1; n <= count.n; n++ {
		dir := prepare()
		killedAt(t, "recover", dir, n)
		checkOpen(t, fmt.Sprintf("killed at step %d", n), dir, "boot-2", p, p.synced)
	}
}

func s0ingest(dir, ref string) string {
	return filepath.Join(dir, "ingest", digest.FromString(ref).Encoded())
}

// A failed sync is not repeated: unsynced data is removed.
func TestWriter_FailedSync_DropsUnsyncedData(t *testing.T) {
	failing := inject.FS{Under: durable.OS{}, At: func(op inject.Op) error {
		if op.Verb == "sync" && filepath.Base(op.Path) == dataFile {
			return syscall.EIO
		}
		return nil
	}}
	for name, end := range map[string]func(*Writer) error{
		"commit": func(w *Writer) error { return w.Commit(context.Background(), 0, "") },
		"sync":   func(w *Writer) error { return w.Sync(context.Background()) },
		"close":  (*Writer).Close,
	} {
		s, err := OpenWith(t.TempDir(), Options{FS: failing})
		if err != nil {
			t.Fatal(err)
		}
		w, err := s.Writer(t.Context(), "r", WriterOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, "hello"); err != nil {
			t.Fatal(err)
		}
		if err := end(w); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", name, err)
		}
		if err := w.Truncate(0); err == nil {
			t.Errorf("%s: it can be restarted", name)
		}
		if err := w.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if list, err := s.ListStatuses(t.Context(), ""); err != nil || len(list) > 0 {
			t.Errorf("%s: left %+v, %v", name, list, err)
		}
	}
}

// A damaged blob is at one of two places, wherever its move is interrupted.
func TestReindex_InterruptedMove(t *testing.T) {
	for n := 1; ; n++ {
		dir := t.TempDir()
		if _, err := open(dir, Options{FS: durable.OS{}}, "boot-1", testPace()); err != nil {
			t.Fatal(err)
		}
		name := digest.FromString("blob").Encoded()
		path := filepath.Join(dir, "blobs", "sha256", name)
		if err := os.WriteFile(path, []byte("blot"), 0o444); err != nil {
			t.Fatal(err)
		}
		c := &steps{at: n, stop: func(int) error { return syscall.EIO }}
		s, err := open(dir, Options{FS: c.fs()}, "boot-1", testPace())
		if err != nil {
			t.Fatal(err)
		}
		damaged, err := s.Reindex(t.Context(), ReindexOptions{}, func(Info) error { return nil })
		_, before := os.Stat(path)
		_, after := os.Stat(filepath.Join(dir, "damaged", "sha256-"+name))
		if (before == nil) == (after == nil) {
			t.Errorf("step %d: %v, %v", n, before, after)
		}
		if err == nil {
			if len(damaged) != 1 || n < 4 {
				t.Errorf("after %d steps: %+v", n, damaged)
			}
			return
		}
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("step %d: %v", n, err)
		}
	}
}

// A full disk is reported as such, and data written before is not lost.
func TestWriter_FullDisk(t *testing.T) {
	full := &steps{stop: func(int) error { return syscall.ENOSPC }}
	dir := t.TempDir()
	s, err := open(dir, Options{FS: full.fs()}, "boot-1", testPace())
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.Writer(t.Context(), "a", WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(noise('a', 130_000)[:10_000]); err != nil {
		t.Fatal(err)
	}
	full.at = full.n + 1
	n, err := w.Write(noise('a', 130_000)[10_000:20_000])
	if n != 5_000 || !errdefs.IsResourceExhausted(err) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if err := w.Commit(t.Context(), 0, ""); !errdefs.IsResourceExhausted(err) {
		t.Errorf("commit: %v", err)
	}
	if _, err := s.Writer(t.Context(), "b", WriterOptions{}); !errdefs.IsResourceExhausted(err) {
		t.Errorf("another writer: %v", err)
	}
	full.at = 0
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if st, err := s.Status(t.Context(), "a"); err != nil || st.Offset < 10_000 {
		t.Errorf("%+v, %v", st, err)
	}
	complete(t, "after a full disk", s, "a")
	checkFiles(t, "after a full disk", dir, nil)
}
