package archive

import (
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/inroot"
)

// Whiteouts selects how whiteouts are applied.
type Whiteouts int

const (
	// WhiteoutRemove deletes the file that a whiteout names from the root, unless this archive
	// itself created it.
	WhiteoutRemove Whiteouts = iota
	// WhiteoutOverlay creates character devices 0/0 and opaque directories.
	WhiteoutOverlay
)

// Options change how an archive is applied. The zero value is right for a plain directory.
type Options struct {
	Whiteouts Whiteouts
	// UserXattr writes the mark of opaque directories as user.overlay.opaque, for
	// overlays mounted with userxattr.
	UserXattr bool
	// Lower, for WhiteoutOverlay, opens the merged directory of the lower layers. It is
	// called at most once, if an entry is in a directory that the archive does not have, or
	// is a hard link to a file that it does not have: these are then copied up. Without it
	// such directories are created anew, and such links fail.
	Lower func() (*os.File, error)
	// Alone, for WhiteoutOverlay, means that the lower layers are not known yet. An archive that
	// would need Lower fails with ErrBelow; once the lower layers exist, it can be
	// applied again.
	Alone bool
	// MaxEntries bounds the entries; 0 means 10 million.
	MaxEntries int
	// MaxNames bounds the total length of the paths of entries, and of directories without entries, in
	// bytes, and so the memory for remembered paths; 0 means 256 MiB.
	MaxNames int
	// MaxBytes bounds the archive's own length, and the sum of the files' lengths; 0
	// means 1 TiB.
	MaxBytes int64

	// openat2 replaces the system call in tests.
	openat2 inroot.Openat2
}

func (o *Options) setDefaults() {
	if o.MaxEntries == 0 {
		o.MaxEntries = 10_000_000
	}
	if o.MaxNames == 0 {
		o.MaxNames = 256 << 20
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 1 << 40
	}
}

// ErrBelow reports that an archive refers to files of lower layers.
var ErrBelow = errors.New("layer refers to lower layers")

// ErrLimit reports that an archive exceeds a limit of its options.
var ErrLimit = errors.New("over the limit")

// Result describes what was applied.
type Result struct {
	Entries int
	Bytes   int64 // in regular files
	// Root reports that the root itself had an entry, with its owner and mode.
	Root bool
}

// invalidf returns an error of the class invalid argument.
func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), errdefs.ErrInvalidArgument)
}

// overf returns the error of an archive that exceeds a limit.
func overf(format string, args ...any) error {
	return invalidf("%w: %w", fmt.Errorf(format, args...), ErrLimit)
}
