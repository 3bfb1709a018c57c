package content

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/internal/durable"
	"github.com/cleatproject/cleat/internal/inject"
)

// The crash tests run a story once for each of its steps on disk, and interrupt it there: by an
// error, by errors from there on, or by killing the process. Then the store is opened again, as
// after the death of a process and as after a power loss, and must keep its promises.

// testPace makes all periodic actions happen in a small ingest.
func testPace() pace { return pace{writeBack: 20_000, checkpoint: 30_000, sync: 80_000} }

// noise returns unique data, the same in every process.
func noise(seed uint64, size int) []byte {
	var key [32]byte
	key[0] = byte(seed)
	out := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(out) // never fails
	return out
}

// ramDir returns a directory in memory if possible: the test is about the steps, not the disk,
// and has many syncs.
func ramDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "cleat-content-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// full returns the complete data of each ingest of the story, by ref.
func full(ref string) []byte { return noise(uint64(ref[0]), 130_000) }

// promises is the acknowledged state.
type promises struct {
	offset map[string]int  // of ingests, at least
	synced map[string]int  // likewise, after a power loss
	blobs  map[string]bool // by ref; false from the start of a deletion
}

// story is one run; say is called with each acknowledged line.
type story struct {
	s   *Store
	say func(line string)
}

// part writes an ingest up to a size.
func (st *story) part(w *Writer, ref string, to int) error {
	for off := int(w.Status().Offset); off < to; {
		n := min(35_000, to-off)
		if _, err := w.Write(full(ref)[off : off+n]); err != nil {
			return err
		}
		off += n
		st.say(fmt.Sprint("offset ", ref, " ", off))
	}
	return nil
}

// ingest opens a writer, writes, and ends with end.
func (st *story) ingest(ref string, to int, end func(*Writer) error) error {
	w, err := st.s.Writer(context.Background(), ref, WriterOptions{Total: int64(len(full(ref))), Expected: digest.FromBytes(full(ref))})
	if err != nil {
		return err
	}
	if err := st.part(w, ref, to); err != nil {
		return errors.Join(err, w.Close())
	}
	if err := end(w); err != nil {
		return errors.Join(err, w.Close())
	}
	return nil
}

func (st *story) commit(w *Writer) error {
	if err := w.Commit(context.Background(), 0, ""); err != nil {
		return err
	}
	st.say("blob " + w.ref)
	return nil
}

func (st *story) leave(w *Writer) error {
	if err := w.Close(); err != nil {
		return err
	}
	st.say(fmt.Sprint("synced ", w.ref, " ", w.offset))
	return nil
}

// play runs all operations of a store, on the directory of the store.
func (st *story) play() error {
	ctx := context.Background()
	size := len(full("a"))
	restart := func(w *Writer) error {
		st.say("restarted c")
		if err := w.Truncate(0); err != nil {
			return err
		}
		if err := st.part(w, "c", size); err != nil {
			return err
		}
		return st.commit(w)
	}
	abort := func(*Writer) error {
		st.say("restarted d")
		return st.s.Abort(ctx, "d")
	}
	for _, do := range []func() error{
		func() error { return st.ingest("a", 90_000, st.leave) },
		func() error { return st.ingest("a", size, st.commit) },
		func() error { return st.ingest("b", size, st.commit) },
		func() error { return st.ingest("c", 100_000, restart) },
		func() error { return st.ingest("d", 90_000, abort) },
		func() error {
			st.say("gone b")
			return st.s.Delete(ctx, digest.FromBytes(full("b")))
		},
		func() error { return st.ingest("e", 100_000, st.leave) },
		func() error { return st.ingest("f", 95_000, func(*Writer) error { return nil }) },
	} {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// parsePromises converts the lines to the required state.
func parsePromises(lines []string) promises {
	p := promises{map[string]int{}, map[string]int{}, map[string]bool{}}
	for _, line := range lines {
		word := strings.Fields(line)
		if len(word) < 2 {
			continue
		}
		ref := word[1]
		switch word[0] {
		case "offset":
			p.offset[ref], _ = strconv.Atoi(word[2]) // written by say
		case "synced":
			p.synced[ref], _ = strconv.Atoi(word[2]) // likewise
		case "restarted":
			delete(p.offset, ref)
			delete(p.synced, ref)
		case "blob":
			p.blobs[ref] = true
			delete(p.offset, ref)
			delete(p.synced, ref)
		case "gone":
			p.blobs[ref] = false
		}
	}
	return p
}

// steps counts the steps of a store on disk, and interrupts one.
type steps struct {
	n    int // so far
	at   int // the one that fails; 0 for none
	stop func(n int) error
	// rolledBack is set if the data of an ingest could not be synced: it is rolled back.
	rolledBack bool
}

func (s *steps) fs() durable.FS {
	return inject.FS{Under: durable.OS{}, At: func(op inject.Op) error {
		s.n++
		if s.at == 0 || s.n < s.at {
			return nil
		}
		err := s.stop(s.n)
		s.rolledBack = s.rolledBack || err != nil && op.Verb == "sync" && filepath.Base(op.Path) == dataFile
		return err
	}}
}

// run runs the story in a directory.
func run(dir string, c *steps, say func(string)) error {
	s, err := open(dir, Options{FS: c.fs()}, "boot-1", testPace())
	if err != nil {
		return err
	}
	return (&story{s, say}).play()
}
