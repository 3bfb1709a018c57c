package content_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
)

func follow(t *testing.T, w *content.Writer) *content.Follower {
	t.Helper()
	f, err := w.Follow()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// readsTo expects a follower to read want, in any number of pieces.
func readsTo(t *testing.T, f *content.Follower, want string) {
	t.Helper()
	buf := make([]byte, len(want))
	if _, err := io.ReadFull(f, buf); err != nil || string(buf) != want {
		t.Errorf("read %q, %v, want %q", buf, err, want)
	}
}

func TestFollow_WhileWriting(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	for name, opts := range map[string]content.WriterOptions{
		"of known size": {Total: int64(len(data)), Expected: digest.FromBytes(data)}, "of unknown size": {},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t)
			w, err := s.Writer(t.Context(), "r", opts)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(data[:1000]); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil { // and resumed
				t.Fatal(err)
			}
			if w, err = s.Writer(t.Context(), "r", opts); err != nil {
				t.Fatal(err)
			}
			f := follow(t, w)
			got := make(chan []byte, 1)
			go func() {
				all, err := io.ReadAll(iotest.HalfReader(f))
				if err != nil {
					t.Error(err)
				}
				got <- all
			}()
			for rest := data[1000:]; len(rest) > 0; {
				n := min(len(rest), 77_777)
				if _, err := w.Write(rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			late := follow(t, w)
			if err := w.Commit(t.Context(), 0, digest.FromBytes(data)); err != nil {
				t.Fatal(err)
			}
			if all := <-got; !bytes.Equal(all, data) {
				t.Errorf("%d bytes were read of %d, or others", len(all), len(data))
			}
			if all, err := io.ReadAll(late); err != nil || !bytes.Equal(all, data) || !late.Valid() {
				t.Errorf("a late follower read %d bytes, %v, valid %t", len(all), err, late.Valid())
			}
			if _, err := w.Follow(); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("follow a writer that has ended: %v", err)
			}
		})
	}
}

// To a pipe the bytes are not copied; to other writers they are.
func TestFollow_IntoPipe(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 200_001)
	s, _ := open(t)
	w, err := s.Writer(t.Context(), "r", content.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	type source interface {
		WriteTo(w io.Writer) (int64, error)
	}
	// arrives expects the data of src to arrive at a slowly read pipe, and in memory.
	arrives := func(what string, src source, piped bool) {
		var got bytes.Buffer
		if !piped {
			if n, err := src.WriteTo(&got); err != nil || n != int64(len(data)) || !bytes.Equal(got.Bytes(), data) {
				t.Errorf("%s: %d bytes, %v", what, n, err)
			}
			return
		}
		r, pipe, err := os.Pipe()
		if err != nil {
			t.Error(err)
			return
		}
		done := make(chan error, 1)
		go func() {
			_, err := io.CopyBuffer(&got, iotest.HalfReader(r), make([]byte, 5000))
			done <- errors.Join(err, r.Close())
		}()
		n, err := src.WriteTo(pipe)
		if err := errors.Join(err, pipe.Close(), <-done); err != nil || n != int64(len(data)) || !bytes.Equal(got.Bytes(), data) {
			t.Errorf("%s: %d bytes, %v", what, n, err)
		}
	}
	var wg sync.WaitGroup
	for _, piped := range []bool{false, true} {
		f := follow(t, w)
		wg.Go(func() { arrives("follower", f, piped) })
	}
	for rest := data; len(rest) > 0; {
		n := min(len(rest), 99_999)
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Commit(t.Context(), 0, ""); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	r, err := s.ReaderAt(t.Context(), digest.FromBytes(data))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, piped := range []bool{false, true} {
		section, err := r.Section(0, -1)
		if err != nil {
			t.Fatal(err)
		}
		arrives("section", section, piped)
	}
}

// Data read from an aborted ingest is never mistaken for the complete blob.
func TestFollow_AbortedIngest_Fails(t *testing.T) {
	for name, end := range map[string]func(w *content.Writer) error{
		"restarted": func(w *content.Writer) error {
			return errors.Join(w.Truncate(0), func() error { _, err := w.Write([]byte("other bytes")); return err }())
		},
		"closed":    (*content.Writer).Close,
		"discarded": (*content.Writer).Discard,
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t)
			w, err := s.Writer(t.Context(), "r", content.WriterOptions{Total: 100})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			write(t, w, "half")
			f := follow(t, w)
			readsTo(t, f, "half")
			failed := make(chan error, 1)
			go func() {
				_, err := f.Read(make([]byte, 10))
				failed <- err
			}()
			if err := end(w); err != nil {
				t.Fatal(err)
			}
			if err := <-failed; !errdefs.IsAborted(err) {
				t.Errorf("still readable: %v", err)
			}
			if f.Valid() != (name != "restarted") {
				t.Errorf("valid %t", f.Valid())
			}
		})
	}
}

func TestFollower_Stop_UnblocksRead(t *testing.T) {
	s, _ := open(t)
	w, err := s.Writer(t.Context(), "r", content.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	f := follow(t, w)
	failed := make(chan error, 1)
	go func() {
		_, err := f.Read(make([]byte, 1))
		failed <- err
	}()
	f.Stop()
	if err := <-failed; !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}
