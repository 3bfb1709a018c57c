package identifier

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestCheck(t *testing.T) {
	for id, ok := range map[string]bool{
		"a": true, "A-b_c.d": true, "0": true, strings.Repeat("x", 76): true, New(): true,
		"": false, "-a": false, "a-": false, "a..b": false, "../x": false, "..": false, "a/b": false, "a b": false,
		"é": false, "a\n": false, "a\x00": false, strings.Repeat("x", 77): false,
	} {
		if err := Check(id); (err == nil) != ok || err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestRandom(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		id := Random(12)
		if len(id) != 24 || strings.Trim(id, "0123456789abcdef") != "" || seen[id] {
			t.Fatalf("%q", id)
		}
		seen[id] = true
	}
}
