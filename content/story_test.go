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

// The crash tests play a story once for each step it takes on disk, and cut it off there: by an
// error, by errors from there on, or by killing the process. Then the store is opened again, as
// after the death of a process and as after a power loss, and has to keep what it had promised.

// testPace makes every part of the pace happen in a small ingest.
func testPace() pace { return pace{writeBack: 20_000, checkpoint: 30_000, sync: 80_000} }

// noise is data that nothing else resembles, the same in every process.
func noise(seed uint64, size int) []byte {
	var key [32]byte
	key[0] = byte(seed)
	out := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(out) // never fails
	return out
}

// ramDir is a directory in memory where there is one: what is tested are the steps, not the disk,
// and their syncs are many.
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

// full is what every ingest of the story is going to be, by ref.
func full(ref string) []byte { return noise(uint64(ref[0]), 130_000) }

// promises are what the store acknowledged.
type promises struct {
	offset map[string]int  // of ingests, at least
	synced map[string]int  // likewise, after a power loss
	blobs  map[string]bool // by ref; false from when a deletion begins
}

// story is one run; say is called with each line of what was acknowledged.
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

// play is all that a store does, on the directory of the store.
func (st *story) play() error {
	ctx := context.Background()
	size := len(full("a"))
	anew := func(w *Writer) error {
		st.say("anew c")
		if err := w.Truncate(0); err != nil {
			return err
		}
		if err := st.part(w, "c", size); err != nil {
			return err
		}
		return st.commit(w)
	}
	abort := func(w *Writer) error {
		st.say("anew d")
		return st.s.Abort(ctx, "d")
	}
	for _, do := range []func() error{
		func() error { return st.ingest("a", 90_000, st.leave) },
		func() error { return st.ingest("a", size, st.commit) },
		func() error { return st.ingest("b", size, st.commit) },
		func() error { return st.ingest("c", 100_000, anew) },
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

// hear turns the lines into what must hold.
func hear(lines []string) promises {
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
		case "anew":
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

// steps counts what a store does on disk, and cuts it off.
type steps struct {
	n    int // so far
	at   int // which one fails; 0 for none
	stop func(n int) error
	// doubt is set where the data of an ingest could not be synced: it goes back to where it was.
	doubt bool
}

func (s *steps) fs() durable.FS {
	return inject.FS{Under: durable.OS{}, At: func(op inject.Op) error {
		s.n++
		if s.at == 0 || s.n < s.at {
			return nil
		}
		err := s.stop(s.n)
		s.doubt = s.doubt || err != nil && op.Verb == "sync" && filepath.Base(op.Path) == dataFile
		return err
	}}
}

// tell plays the story in a directory.
func tell(dir string, c *steps, say func(string)) error {
	s, err := open(dir, Options{FS: c.fs()}, "boot-1", testPace())
	if err != nil {
		return err
	}
	return (&story{s, say}).play()
}
