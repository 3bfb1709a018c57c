package snapshot

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/bytesize"
)

// Limited is a Driver that can limit what a snapshot holds itself, its parents not counted unless it
// copies them.
type Limited interface {
	Driver
	// PrepareLimited is Prepare of an active snapshot that holds no more than a number of bytes on disk;
	// whoever writes more gets ENOSPC or EDQUOT. Failed precondition where the file system below does not
	// keep limits, resource exhausted where a copy of a parent takes more; nothing is left then.
	PrepareLimited(ctx context.Context, id uint64, parents []uint64, bytes int64) error
	// SetLimit changes the limit of a snapshot that PrepareLimited made, to less than it holds as well;
	// 0 takes it away. Not found if there is no such snapshot, failed precondition if it was made
	// without a limit.
	SetLimit(ctx context.Context, id uint64, bytes int64) error
}

// MinLimit is the least that a snapshot can be limited to: a file system needs some for directories.
const MinLimit = 1 << 20

// CheckLimit refuses limits that make no sense, as invalid arguments.
func CheckLimit(bytes int64) error {
	if bytes < MinLimit {
		return fmt.Errorf("a limit of %d bytes: want at least %d: %w", bytes, MinLimit, errdefs.ErrInvalidArgument)
	}
	return nil
}

// ParseLimit reads a limit: a size as of bytesize.ParseWhole. It is an invalid argument if it is none, or one that
// CheckLimit refuses.
func ParseLimit(text string) (int64, error) {
	bytes, err := bytesize.ParseWhole(text)
	if err != nil {
		return 0, fmt.Errorf("limit: %w", err)
	}
	return bytes, CheckLimit(bytes)
}
