package archive

import (
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/inroot"
)

// Whiteouts says what becomes of whiteouts.
type Whiteouts int

const (
	// WhiteoutRemove deletes from the root what a whiteout names, unless this archive
	// itself put it there.
	WhiteoutRemove Whiteouts = iota
	// WhiteoutOverlay makes character devices 0/0 and opaque directories.
	WhiteoutOverlay
)

// Options change how an archive is applied. The zero value is good for a plain directory.
type Options struct {
	Whiteouts Whiteouts
	// UserXattr writes the mark of opaque directories as user.overlay.opaque, for
	// overlays mounted with userxattr.
	UserXattr bool
	// Lower, for WhiteoutOverlay, opens the directory as the layers below make it. It is
	// called at most once, if an entry lies in a directory the archive does not have, or
	// is a hard link to a file it does not have: these are then copied up. Without it
	// such directories are made anew, and such links fail.
	Lower func() (*os.File, error)
	// Alone, for WhiteoutOverlay, says that what is below is not known yet. An archive that
	// would have needed Lower fails with ErrBelow; once the layers below are there, it can be
	// applied anew.
	Alone bool
	// MaxEntries bounds the entries; 0 means 10 million.
	MaxEntries int
	// MaxNames bounds the paths of entries, and of directories that have none, together, in
	// bytes, and so the memory for what has to be remembered; 0 means 256 MiB.
	MaxNames int
	// MaxBytes bounds the archive's own length, and the sum of the files' lengths; 0
	// means 1 TiB.
	MaxBytes int64

	// openat2 takes the system call's place in tests.
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

// ErrBelow says that an archive refers to what lies in the layers below it.
var ErrBelow = errors.New("it needs the layers below")

// ErrLimit says that an archive is over one of the limits of its options.
var ErrLimit = errors.New("over the limit")

// Result says what was applied.
type Result struct {
	Entries int
	Bytes   int64 // in regular files
	// Root says that the root itself had an entry, with its owner and mode.
	Root bool
}

// invalidf makes an error of the class invalid argument.
func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), errdefs.ErrInvalidArgument)
}

// overf makes an error of an archive that is over a limit.
func overf(format string, args ...any) error {
	return invalidf("%w: %w", fmt.Errorf(format, args...), ErrLimit)
}
