package snapshot

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/bytesize"
)

// Limited is a Driver that can limit the storage of a snapshot itself, without its parents unless it
// copies them.
type Limited interface {
	Driver
	// PrepareLimited is Prepare of an active snapshot with at most a number of bytes on disk;
	// further writes fail with ENOSPC or EDQUOT. Failed precondition if the file system does not
	// support limits, resource exhausted if a copy of a parent needs more; nothing is left then.
	PrepareLimited(ctx context.Context, id uint64, parents []uint64, bytes int64) error
	// SetLimit changes the limit of a snapshot created by PrepareLimited, also to less than its usage;
	// 0 removes it. Not found if there is no such snapshot, failed precondition if it was created
	// without a limit.
	SetLimit(ctx context.Context, id uint64, bytes int64) error
}

// MinLimit is the minimal limit of a snapshot: a file system needs some space for directories.
const MinLimit = 1 << 20

// CheckLimit returns an invalid argument for a limit below the minimum.
func CheckLimit(bytes int64) error {
	if bytes < MinLimit {
		return fmt.Errorf("a limit of %d bytes: want at least %d: %w", bytes, MinLimit, errdefs.ErrInvalidArgument)
	}
	return nil
}

// ParseLimit parses a limit: a size in the form of bytesize.ParseWhole. It is an invalid argument if it is
// not a size, or a limit that CheckLimit refuses.
func ParseLimit(text string) (int64, error) {
	bytes, err := bytesize.ParseWhole(text)
	if err != nil {
		return 0, fmt.Errorf("limit: %w", err)
	}
	return bytes, CheckLimit(bytes)
}
