package contenttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
)

func commitMakesVisible(s *suite) {
	d := digest.FromString("hello")
	w := s.writer("r", content.WriterOptions{Total: 5, Expected: d})
	s.write(w, "hel")
	_, err := s.Info(s.ctx, d)
	s.class("before its commit", err, errdefs.IsNotFound)
	s.has(0, 1)
	s.write(w, "lo")
	if got := w.Digest(); got != d {
		s.Errorf("running digest %s", got)
	}
	s.must(w.Commit(s.ctx, 5, d))
	s.must(w.Close())
	info, err := s.Info(s.ctx, d)
	s.must(err)
	if info.Digest != d || info.Size != 5 || info.CreatedAt.IsZero() {
		s.Errorf("info %+v", info)
	}
	if got := s.read(d); got != "hello" {
		s.Errorf("read %q", got)
	}
	s.has(1, 0)
	s.Store = s.restart()
	s.has(1, 0)
	if got := s.read(d); got != "hello" {
		s.Errorf("read %q", got)
	}
}

func emptyBlob(s *suite) {
	w := s.writer("r", content.WriterOptions{})
	s.must(w.Commit(s.ctx, 0, digest.FromString("")))
	if got := s.read(digest.FromString("")); got != "" {
		s.Errorf("read %q", got)
	}
}

func mismatch(s *suite) {
	for name, c := range map[string]struct {
		opts   content.WriterOptions
		size   int64
		digest digest.Digest
	}{
		"size":            {size: 6},
		"total":           {opts: content.WriterOptions{Total: 6}},
		"digest":          {digest: digest.FromString("other")},
		"expected":        {opts: content.WriterOptions{Expected: digest.FromString("other")}},
		"other algorithm": {digest: digest.SHA512.FromString("other")},
	} {
		w := s.writer("r", c.opts)
		s.write(w, "hello")
		s.class(name, w.Commit(s.ctx, c.size, c.digest), errdefs.IsFailedPrecondition)
		s.must(w.Close())
		s.has(0, 1)
		s.must(s.Abort(s.ctx, "r"))
		s.has(0, 0)
	}
}

func mismatchAnew(s *suite) {
	d := digest.FromString("right")
	w := s.writer("r", content.WriterOptions{Expected: d})
	s.write(w, "wrong")
	s.class("commit", w.Commit(s.ctx, 0, ""), errdefs.IsFailedPrecondition)
	s.must(w.Close())
	w = s.writer("r", content.WriterOptions{Expected: d})
	s.must(w.Truncate(0))
	s.write(w, "right")
	s.must(w.Commit(s.ctx, 0, ""))
	s.has(1, 0)
}

func later(s *suite) {
	d := digest.FromString("hello")
	w := s.writer("r", content.WriterOptions{Total: 7, Expected: digest.FromString("other")})
	s.write(w, "hello")
	s.must(w.Commit(s.ctx, 5, d))
	if got := s.read(d); got != "hello" {
		s.Errorf("read %q", got)
	}
}

func resume(s *suite) {
	opts := content.WriterOptions{Total: 5, Expected: digest.FromString("hello")}
	w := s.writer("r", opts)
	s.write(w, "hel")
	s.must(w.Close())
	w = s.writer("r", content.WriterOptions{})
	s.resumed(w, opts)
}

func resumeRestarted(s *suite) {
	opts := content.WriterOptions{Total: 5, Expected: digest.FromString("hello")}
	w := s.writer("r", opts)
	s.write(w, "hel")
	s.must(w.Close())
	s.Store = s.restart()
	s.has(0, 1)
	w = s.writer("r", content.WriterOptions{})
	s.resumed(w, opts)
}

// resumed checks the ingest "r" with the data hel, and ends it.
func (s *suite) resumed(w Writer, opts content.WriterOptions) {
	s.Helper()
	st := w.Status()
	if st.Offset != 3 || st.Total != opts.Total || st.StartedAt.IsZero() || st.UpdatedAt.Before(st.StartedAt) {
		s.Errorf("status %+v", st)
	}
	if w.Digest() != digest.FromString("hel") {
		s.Errorf("running digest %s", w.Digest())
	}
	if st, err := s.Status(s.ctx, "r"); err != nil || st.Ref != "r" || st.Expected != opts.Expected || st.Total != opts.Total {
		s.Errorf("status of the store %+v, %v", st, err)
	}
	s.write(w, "lo")
	s.must(w.Commit(s.ctx, 0, ""))
	s.has(1, 0)
}

func resumeOther(s *suite) {
	w := s.writer("r", content.WriterOptions{Total: 5, Expected: digest.FromString("hello")})
	s.write(w, "hel")
	s.must(w.Close())
	for what, opts := range map[string]content.WriterOptions{
		"size": {Total: 6}, "digest": {Expected: digest.FromString("help!")},
	} {
		_, err := s.Writer(s.ctx, "r", opts)
		s.class(what, err, errdefs.IsFailedPrecondition)
	}
}

func keepsStart(s *suite) {
	w := s.writer("r", content.WriterOptions{})
	s.write(w, "x")
	started := w.Status().StartedAt
	s.must(w.Close())
	s.Store = s.restart()
	w = s.writer("r", content.WriterOptions{})
	if got := w.Status().StartedAt; !got.Equal(started) {
		s.Errorf("started at %s, was %s", got, started)
	}
}

func truncate(s *suite) {
	w := s.writer("r", content.WriterOptions{})
	s.write(w, "wrong and longer")
	s.must(w.Truncate(0))
	s.write(w, "right")
	s.must(w.Commit(s.ctx, 5, digest.FromString("right")))
	s.has(1, 0)
}

func oneWriter(s *suite) {
	w := s.writer("r", content.WriterOptions{})
	_, err := s.Writer(s.ctx, "r", content.WriterOptions{})
	s.class("second writer", err, errdefs.IsUnavailable)
	s.write(w, "x")
	s.must(w.Close())
	if _, err := w.Write([]byte("y")); err == nil {
		s.Error("a closed writer takes bytes")
	}
	s.writer("r", content.WriterOptions{})
}

func abort(s *suite) {
	w := s.writer("r", content.WriterOptions{})
	s.write(w, "x")
	s.must(s.Abort(s.ctx, "r"))
	s.has(0, 0)
	_, err := w.Write([]byte("y"))
	if err == nil {
		err = w.Commit(s.ctx, 0, "")
	}
	if err == nil {
		s.Error("an aborted ingest was committed")
	}
	s.class("second abort", s.Abort(s.ctx, "r"), errdefs.IsNotFound)
	s.has(0, 0)
}

func twice(s *suite) {
	a, b := s.writer("a", content.WriterOptions{}), s.writer("b", content.WriterOptions{})
	s.write(a, "x")
	s.write(b, "x")
	s.must(a.Commit(s.ctx, 0, ""))
	s.class("second commit", b.Commit(s.ctx, 0, ""), errdefs.IsAlreadyExists)
	s.has(1, 0)
	_, err := s.Writer(s.ctx, "c", content.WriterOptions{Expected: digest.FromString("x")})
	s.class("writer for a present blob", err, errdefs.IsAlreadyExists)
	s.has(1, 0)
}

func many(s *suite) {
	data := bytes.Repeat([]byte("0123456789"), 10_000)
	opts := content.WriterOptions{Expected: digest.FromBytes(data)}
	results := make([]error, 16)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() {
			w, err := s.Writer(s.ctx, fmt.Sprint("r", i), opts)
			if err == nil {
				_, err = w.Write(data)
				err = errors.Join(err, w.Commit(s.ctx, int64(len(data)), ""), w.Close())
			}
			results[i] = err
		})
	}
	wg.Wait()
	var won int
	for _, err := range results {
		if err == nil {
			won++
		} else {
			s.class("loser", err, errdefs.IsAlreadyExists)
		}
	}
	if won != 1 {
		s.Errorf("%d writers made the blob", won)
	}
	s.has(1, 0)
}

func inParallel(s *suite) {
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			data := fmt.Sprint("blob ", i)
			w, err := s.Writer(s.ctx, data, content.WriterOptions{})
			if err == nil {
				_, err = io.WriteString(w, data)
				err = errors.Join(err, w.Commit(s.ctx, 0, digest.FromString(data)), w.Close())
			}
			if err != nil {
				s.Error(err)
			}
		})
	}
	wg.Wait()
	s.has(16, 0)
}

func readersOutliveDelete(s *suite) {
	d := s.blob("hello")
	r, err := s.ReaderAt(s.ctx, d)
	s.must(err)
	s.must(s.Delete(s.ctx, d))
	s.class("second delete", s.Delete(s.ctx, d), errdefs.IsNotFound)
	_, err = s.ReaderAt(s.ctx, d)
	s.class("read", err, errdefs.IsNotFound)
	s.must(r.Close())
	s.has(0, 0)
}

func writtenAgain(s *suite) {
	d := s.blob("hello")
	s.must(s.Delete(s.ctx, d))
	s.blob("hello")
	if got := s.read(d); got != "hello" {
		s.Errorf("read %q", got)
	}
}

func ranges(s *suite) {
	r, err := s.ReaderAt(s.ctx, s.blob("0123456789"))
	s.must(err)
	defer func() { _ = r.Close() }()
	for _, c := range []struct {
		off  int64
		n    int
		want string
		eof  bool
	}{{0, 10, "0123456789", false}, {3, 4, "3456", false}, {8, 4, "89", true}, {10, 1, "", true}, {0, 0, "", false}} {
		buf := make([]byte, c.n)
		n, err := r.ReadAt(buf, c.off)
		if string(buf[:n]) != c.want || errors.Is(err, io.EOF) != c.eof || err != nil && !c.eof {
			s.Errorf("%d bytes from %d: %q, %v", c.n, c.off, buf[:n], err)
		}
	}
}

func badArguments(s *suite) {
	for _, d := range []digest.Digest{"", "sha256:../../../etc/passwd", "sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256"} {
		_, err := s.Info(s.ctx, d)
		s.class(fmt.Sprintf("info of %q", d), err, errdefs.IsInvalidArgument)
		_, err = s.ReaderAt(s.ctx, d)
		s.class(fmt.Sprintf("reader of %q", d), err, errdefs.IsInvalidArgument)
		s.class(fmt.Sprintf("delete of %q", d), s.Delete(s.ctx, d), errdefs.IsInvalidArgument)
		if d != "" {
			_, err = s.Writer(s.ctx, "r", content.WriterOptions{Expected: d})
			s.class(fmt.Sprintf("writer for %q", d), err, errdefs.IsInvalidArgument)
		}
	}
	_, err := s.Writer(s.ctx, "", content.WriterOptions{})
	s.class("writer without a ref", err, errdefs.IsInvalidArgument)
	_, err = s.Status(s.ctx, "")
	s.class("status without a ref", err, errdefs.IsInvalidArgument)
	s.class("abort without a ref", s.Abort(s.ctx, ""), errdefs.IsInvalidArgument)
	s.has(0, 0)
}

func missing(s *suite) {
	d := digest.FromString("missing")
	_, err := s.Info(s.ctx, d)
	s.class("info", err, errdefs.IsNotFound)
	_, err = s.ReaderAt(s.ctx, d)
	s.class("reader", err, errdefs.IsNotFound)
	s.class("delete", s.Delete(s.ctx, d), errdefs.IsNotFound)
	_, err = s.Status(s.ctx, "missing")
	s.class("status", err, errdefs.IsNotFound)
	s.class("abort", s.Abort(s.ctx, "missing"), errdefs.IsNotFound)
}

func statuses(s *suite) {
	for _, ref := range []string{"a/1", "a/2", "b/1"} {
		w := s.writer(ref, content.WriterOptions{Total: 9})
		s.write(w, ref)
	}
	list, err := s.ListStatuses(s.ctx, "a/")
	s.must(err)
	var refs []string
	for _, st := range list {
		refs = append(refs, st.Ref)
		if st.Offset != 3 || st.Total != 9 || st.StartedAt.IsZero() || st.UpdatedAt.IsZero() {
			s.Errorf("status %+v", st)
		}
	}
	slices.Sort(refs)
	if !slices.Equal(refs, []string{"a/1", "a/2"}) {
		s.Errorf("listed %q", refs)
	}
}

func everyAlgorithm(s *suite) {
	for _, a := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
		d := a.FromString("hello")
		early := s.writer("early", content.WriterOptions{Expected: d})
		s.write(early, "hello")
		s.must(early.Commit(s.ctx, 0, ""))
		s.must(s.Delete(s.ctx, d))
		late := s.writer("late", content.WriterOptions{})
		s.write(late, "hello")
		s.must(late.Commit(s.ctx, 0, d))
		if got := s.read(d); got != "hello" {
			s.Errorf("%s: read %q", a, got)
		}
		s.must(s.Delete(s.ctx, d))
	}
	s.has(0, 0)
}

func cancelled(s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	if _, err := s.Writer(ctx, "r", content.WriterOptions{}); err == nil {
		s.Error("a writer was opened for a cancelled client")
	}
	s.has(0, 0)
}

func oddSizes(s *suite) {
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 3<<20+17)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	w := s.writer("r", content.WriterOptions{})
	for rest := data; len(rest) > 0; {
		n := min(1+r.IntN(300_000), len(rest))
		s.write(w, string(rest[:n]))
		rest = rest[n:]
	}
	d := digest.FromBytes(data)
	s.must(w.Commit(s.ctx, int64(len(data)), d))
	if got := s.read(d); got != string(data) {
		s.Error("the bytes differ")
	}
}
