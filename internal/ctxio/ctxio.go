// Package ctxio holds what copies of long streams share: readers that end with a context, and the size of a buffer.
package ctxio

import (
	"context"
	"io"
)

// BufferSize is the size in bytes of a buffer for long copies.
const BufferSize = 256 << 10

// ReaderFunc is a function that reads, as a reader.
type ReaderFunc func([]byte) (int, error)

// Read implements io.Reader.
func (f ReaderFunc) Read(p []byte) (int, error) { return f(p) }

// Reader returns a reader of r that fails with the error of ctx once that has ended. A Read that is blocked is not
// interrupted.
func Reader(ctx context.Context, r io.Reader) io.Reader {
	return ReaderFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}
