package image

import (
	"errors"
	"fmt"

	"github.com/cleatproject/cleat/archive"
)

// Limits bound the unpacked size of a layer, which its own length does not: a
// layer over a limit is an invalid argument. A zero means the default.
type Limits struct {
	// Bytes bounds its length, and the total length of its files; 256 GiB.
	Bytes int64
	// Ratio bounds the same by a multiple of the layer's compressed length, beyond the first 4 GiB; 200.
	Ratio int64
	// Entries bounds its files, directories and so on; 10 million.
	Entries int
}

// The defaults. Real layers are far smaller; zeros, of which a layer of a few megabytes can hold a
// terabyte, are not.
const (
	defaultBytes   = 256 << 30
	defaultRatio   = 200
	defaultEntries = 10_000_000
	// anyRatio is the unpacked length allowed for a layer of any size.
	anyRatio = 4 << 30
)

// DefaultLimits returns the default limits.
func DefaultLimits() Limits { return Limits{defaultBytes, defaultRatio, defaultEntries} }

// bound sets the limits for a layer of a length in the options of its application.
func (l Limits) bound(o *archive.Options, size int64) {
	d := DefaultLimits()
	if l.Bytes == 0 {
		l.Bytes = d.Bytes
	}
	if l.Ratio == 0 {
		l.Ratio = d.Ratio
	}
	if l.Entries == 0 {
		l.Entries = d.Entries
	}
	o.MaxBytes, o.MaxEntries = l.Bytes, l.Entries
	if size <= l.Bytes/l.Ratio { // otherwise the product is higher
		o.MaxBytes = min(l.Bytes, max(anyRatio, size*l.Ratio))
	}
}

// explain names the configuration of the limit that a layer exceeds.
func (l Limits) explain(err error, size int64) error {
	if !errors.Is(err, archive.ErrLimit) {
		return err
	}
	return fmt.Errorf("%w (compressed: %d bytes; limits: [unpack] in the daemon's configuration)", err, size)
}
