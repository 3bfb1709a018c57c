// Package edit makes images of images: one with a further layer and a changed configuration (FindBase, AddLayer and
// ParseChange, for a commit), and one with the same files in other media types and compressions (Convert).
//
// Guarantees: layers that do not change are shared with the old image. A layer that is compressed anew is verified
// while it is read. Members of documents that this package does not know are kept. All that is made is stored before
// the index or manifest that refers to it; nothing refers to the result until the caller records it.
//
// What a failed call has stored is the caller's to remove. A request that cannot be carried out is
// errdefs.ErrInvalidArgument.
package edit

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// invalidf makes an error of the class invalid argument.
func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), errdefs.ErrInvalidArgument)
}
