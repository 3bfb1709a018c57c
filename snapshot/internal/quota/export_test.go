package quota

import "math/rand/v2"

// WithinFew is Within with no more than a few numbers to draw from.
func WithinFew(dir string, few uint32, bytes int64, fill func() error) error {
	return within(dir, bytes, func() uint32 { return lowest + rand.Uint32N(few) }, fill)
}
