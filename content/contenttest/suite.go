// Package contenttest is the conformance suite of a content store, used for the store
// itself, and for the daemon's API.
package contenttest

import (
	"context"
	"errors"
	"io"
	"testing"

	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
)

// Store is a content store as seen by its users.
type Store interface {
	Info(ctx context.Context, d digest.Digest) (content.Info, error)
	Walk(ctx context.Context, fn func(content.Info) error) error
	Delete(ctx context.Context, d digest.Digest) error
	ReaderAt(ctx context.Context, d digest.Digest) (Reader, error)
	Writer(ctx context.Context, ref string, opts content.WriterOptions) (Writer, error)
	Status(ctx context.Context, ref string) (content.Status, error)
	ListStatuses(ctx context.Context, prefix string) ([]content.Status, error)
	Abort(ctx context.Context, ref string) error
}

// Reader reads a blob.
type Reader interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Writer writes an ingest.
type Writer interface {
	io.WriteCloser
	Commit(ctx context.Context, size int64, expected digest.Digest) error
	Digest() digest.Digest
	Status() content.Status
	Truncate(size int64) error
}

// Run tests the store that open returns, which is empty. The function restart that open
// returns opens the same store again, as after a restart of its process.
func Run(t *testing.T, open func(t *testing.T) (s Store, restart func() Store)) {
	for name, test := range map[string]func(*suite){
		"CommitMakesVisible":       commitMakesVisible,
		"EmptyBlob":                emptyBlob,
		"MismatchIsNeverVisible":   mismatch,
		"ResumeAfterClose":         resume,
		"ResumeAfterRestart":       resumeRestarted,
		"ResumeForSomethingElse":   resumeOther,
		"TruncateBeginsAnew":       truncate,
		"OneWriterOfARef":          oneWriter,
		"AbortEndsTheIngest":       abort,
		"SameBlobTwice":            twice,
		"ManyWritersOfOneBlob":     many,
		"ReadersOutliveDelete":     readersOutliveDelete,
		"RangesAreRead":            ranges,
		"BadArgumentsAreRefused":   badArguments,
		"MissingIsNotFound":        missing,
		"StatusesAreListed":        statuses,
		"EveryAlgorithm":           everyAlgorithm,
		"CancelledLeavesNoIngest":  cancelled,
		"LaterExpectedTakesPlace":  later,
		"BigWritesInOddSizes":      oddSizes,
		"MismatchCanBeginAnew":     mismatchAnew,
		"OldIngestKeepsItsStart":   keepsStart,
		"ManyIngestsInParallel":    inParallel,
		"DeletedCanBeWrittenAgain": writtenAgain,
	} {
		t.Run(name, func(t *testing.T) {
			s := &suite{T: t, ctx: t.Context()}
			s.Store, s.restart = open(t)
			test(s)
		})
	}
}

type suite struct {
	*testing.T
	Store
	ctx     context.Context
	restart func() Store
}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) writer(ref string, opts content.WriterOptions) Writer {
	s.Helper()
	w, err := s.Writer(s.ctx, ref, opts)
	s.must(err)
	s.Cleanup(func() { _ = w.Close() }) // even if the test fails before
	return w
}

func (s *suite) write(w io.Writer, data string) {
	s.Helper()
	n, err := io.WriteString(w, data)
	s.must(err)
	if n != len(data) {
		s.Fatalf("%d of %d bytes written", n, len(data))
	}
}

// blob stores a blob.
func (s *suite) blob(data string) digest.Digest {
	s.Helper()
	d := digest.FromString(data)
	w := s.writer("blob-"+d.Encoded(), content.WriterOptions{Total: int64(len(data)), Expected: d})
	s.write(w, data)
	s.must(w.Commit(s.ctx, int64(len(data)), d))
	return d
}

func (s *suite) read(d digest.Digest) string {
	s.Helper()
	r, err := s.ReaderAt(s.ctx, d)
	s.must(err)
	got, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
	s.must(errors.Join(err, r.Close()))
	return string(got)
}

// class checks the class of an error.
func (s *suite) class(what string, err error, is func(error) bool) {
	s.Helper()
	if !is(err) {
		s.Errorf("%s: got %v", what, err)
	}
}

// has checks the numbers of blobs and ingests.
func (s *suite) has(blobs, ingests int) {
	s.Helper()
	var n int
	s.must(s.Walk(s.ctx, func(content.Info) error { n++; return nil }))
	list, err := s.ListStatuses(s.ctx, "")
	s.must(err)
	if n != blobs || len(list) != ingests {
		s.Errorf("%d blobs and %d ingests, want %d and %d", n, len(list), blobs, ingests)
	}
}
