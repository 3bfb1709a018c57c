// Package layout reads and writes archives of images: an OCI image layout or the output of `docker save`, as a tar
// stream.
//
// Import stores the blobs of an archive, compressed or not, and returns the images that it holds, with the names that
// it gives them. Export writes images as an OCI image layout that docker load reads as well; the same images give the
// same bytes.
//
// Guarantees: an archive is read once, from its beginning to its end. The number of its files and the size of its
// documents are bounded. A blob is stored only if it has the digest in its name, and an image is returned only if it
// is present for at least one platform. Errors in an archive are errdefs.ErrInvalidArgument.
//
// Neither records a name: that is the caller's to do, as is removing what a failed Import has stored.
package layout

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// invalidf makes an error of the class invalid argument.
func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), errdefs.ErrInvalidArgument)
}
