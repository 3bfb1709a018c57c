package snapshot_test

import (
	"math"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/snapshot"
)

func TestParseLimit(t *testing.T) {
	for text, want := range map[string]int64{
		"1048576": 1 << 20, "10GiB": 10 << 30, "10gb": 10 << 30, "10G": 10 << 30, "2048k": 2 << 20,
		"3t": 3 << 40, "1PiB": 1 << 50, "5000000b": 5000000, "9223372036854775807": math.MaxInt64,
	} {
		if got, err := snapshot.ParseLimit(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "0", "-1", "-10GiB", "+5g", "1048575", "1023k", "1k", "1.5g", "ten", "10 GiB", "10GG", "10GiBs", "GiB", "10x", "0x1000000",
		"9223372036854775808", "8192PiB", "99999999999999999999999", "1e9", "10ib", "10i", "NaN", "inf",
	} {
		if got, err := snapshot.ParseLimit(text); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %d, %v; want an invalid argument", text, got, err)
		}
	}
}
