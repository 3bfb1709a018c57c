// Package bytesize parses sizes as people write them: "4096", "64m", "1.5GiB".
package bytesize

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Parse parses a size in bytes: a decimal number with or without a fraction, and optionally a unit of b, k, m, g, t
// and p, in either case, each 1024 times the one before, optionally followed by ib or b. A fraction of a byte is
// dropped. Anything else, and a size of 8 EiB or more, is an invalid argument.
func Parse(text string) (int64, error) {
	number, shift, ok := split(text)
	whole, fraction, pointed := strings.Cut(number, ".")
	if !ok || pointed && !digits(fraction) {
		return 0, invalid(text, "a number")
	}
	n, err := scale(text, "a number", whole, shift)
	if err != nil || !pointed {
		return n, err
	}
	part, err := strconv.ParseFloat("0."+fraction, 64)
	if err != nil {
		return 0, invalid(text, "a number")
	}
	return n + min(int64(part*float64(int64(1)<<shift)), math.MaxInt64-n), nil
}

// ParseWhole is Parse without fractions.
func ParseWhole(text string) (int64, error) {
	number, shift, ok := split(text)
	if !ok {
		return 0, invalid(text, "a whole number")
	}
	return scale(text, "a whole number", number, shift)
}

// split returns the number of a size, and the power of two of its unit.
func split(text string) (number string, shift int, ok bool) {
	lower := strings.ToLower(text)
	number = strings.TrimRight(lower, "bikmgtp")
	unit := lower[len(number):]
	if unit == "" || unit == "b" {
		return number, 0, true
	}
	at := strings.IndexByte("kmgtp", unit[0])
	rest := unit[1:]
	return number, 10 * (at + 1), at >= 0 && (rest == "" || rest == "b" || rest == "ib")
}

func scale(text, want, number string, shift int) (int64, error) {
	if !digits(number) {
		return 0, invalid(text, want)
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, invalid(text, want)
	}
	return n << shift, nil
}

func digits(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}

func invalid(text, want string) error {
	return fmt.Errorf("size %q: want %s of bytes below 8 EiB, or one with a unit such as 512MiB or 10g: %w", text, want, errdefs.ErrInvalidArgument)
}
