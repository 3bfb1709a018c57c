package content

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	api "github.com/containerd/containerd/api/services/content/v1"
)

// counter counts the bytes that were read.
type counter struct {
	io.ReaderAt
	n int64
}

func (c *counter) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, off)
	c.n += int64(n)
	return n, err
}

// TestSendRange_SlowClient_ReadsNoFurther expects at most one message to be read ahead of the client.
func TestSendRange_SlowClient_ReadsNoFurther(t *testing.T) {
	r := &counter{ReaderAt: bytes.NewReader(make([]byte, 10*readChunk))}
	taken := 0
	gone := errors.New("gone")
	err := sendRange(t.Context(), r, 0, 10*readChunk, func(*api.ReadContentResponse) error {
		if taken++; r.n > int64(taken)*readChunk {
			t.Errorf("%d bytes were read for %d messages", r.n, taken)
		}
		if taken == 3 {
			return gone
		}
		return nil
	})
	if !errors.Is(err, gone) || r.n != 3*readChunk {
		t.Errorf("%d bytes were read, %v", r.n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = sendRange(ctx, r, 0, 10*readChunk, func(*api.ReadContentResponse) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
