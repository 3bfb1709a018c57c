package content_test

import (
	"context"
	"testing"

	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/content/contenttest"
)

// direct adapts the store to the suite.
type direct struct{ *content.Store }

var _ contenttest.Store = direct{}

func (s direct) ReaderAt(ctx context.Context, d digest.Digest) (contenttest.Reader, error) {
	return s.Store.ReaderAt(ctx, d)
}

func (s direct) Writer(ctx context.Context, ref string, opts content.WriterOptions) (contenttest.Writer, error) {
	w, err := s.Store.Writer(ctx, ref, opts)
	if err != nil {
		return nil, err
	}
	return w, nil
}

func TestConformance(t *testing.T) {
	contenttest.Run(t, func(t *testing.T) (contenttest.Store, func() contenttest.Store) {
		dir := t.TempDir()
		again := func() contenttest.Store {
			s, err := content.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			return direct{s}
		}
		return again(), again
	})
}
