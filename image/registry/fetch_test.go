package registry

import "testing"

func TestContentRange(t *testing.T) {
	for text, want := range map[string]struct {
		begins, total int64
		ok            bool
	}{
		"bytes 5-9/10": {5, 10, true}, "bytes 0-0/*": {0, -1, true}, "bytes */10": {}, "5-9/10": {}, "": {},
		"bytes -1-9/10": {}, "bytes 5-9/-1": {5, -1, false}, "bytes 99999999999999999999-9/10": {},
	} {
		begins, total, ok := contentRange(text)
		if ok != want.ok || ok && (begins != want.begins || total != want.total) {
			t.Errorf("%q: %d, %d, %t", text, begins, total, ok)
		}
	}
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 5-9/10", "bytes 0-/*", "bytes */1", "bytes --/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if begins, total, ok := contentRange(text); ok && (begins < 0 || total < -1) {
			t.Errorf("%q: %d, %d", text, begins, total)
		}
	})
}
