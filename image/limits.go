package image

import (
	"errors"
	"fmt"

	"github.com/cleatproject/cleat/archive"
)

// Limits bound what a layer may come to when it is unpacked, which its own length says nothing of: a
// layer over a limit is an invalid argument. A zero stands for the default.
type Limits struct {
	// Bytes bounds its length, and that of its files together; 256 GiB.
	Bytes int64
	// Ratio bounds the same by so many times the layer's length as it comes, beyond the first 4 GiB; 200.
	Ratio int64
	// Entries bounds its files, directories and so on; 10 million.
	Entries int
}

// The defaults. What people put into layers stays far below; zeros, which a layer of a few megabytes can
// hold a terabyte of, do not.
const (
	defaultBytes   = 256 << 30
	defaultRatio   = 200
	defaultEntries = 10_000_000
	// anyRatio is what a layer may come to however small it is.
	anyRatio = 4 << 30
)

// DefaultLimits returns the limits that are right where nothing else is said.
func DefaultLimits() Limits { return Limits{defaultBytes, defaultRatio, defaultEntries} }

// bound puts the limits for a layer of a length into the options of its application.
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

// explain says what to do about a layer that is over a limit.
func (l Limits) explain(err error, size int64) error {
	if !errors.Is(err, archive.ErrLimit) {
		return err
	}
	return fmt.Errorf("%w (it comes as %d bytes): if it is to be trusted, raise the limits in [unpack] of the daemon's configuration", err, size)
}
