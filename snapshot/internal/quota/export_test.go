package quota

import (
	"math/rand/v2"
	"os"
)

// WithinFew is Within with only a few numbers to draw from.
func WithinFew(dir string, few uint32, bytes int64, fill func() error) error {
	return within(dir, bytes, func() uint32 { return lowest + rand.Uint32N(few) }, fill)
}

// Limit returns the limit of a directory, 0 if there is none.
func Limit(dir string) (bytes int64, err error) {
	err = opened(dir, func(f *os.File) error {
		id, err := own(f)
		if id == 0 || err != nil {
			return err
		}
		q, err := quotasOf(f, id)
		bytes = int64(q.hardBlocks * blockSize)
		return err
	})
	if absent(err) {
		return 0, nil
	}
	return bytes, err
}
