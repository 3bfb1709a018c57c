package stdio

import (
	"reflect"
	"testing"

	"github.com/containerd/errdefs"
)

func TestParseTarget(t *testing.T) {
	for in, want := range map[string]target{
		"":                             {kind: toNull},
		"/run/fifo":                    {kind: toFIFO, path: "/run/fifo"},
		"fifo:///run/f":                {kind: toFIFO, path: "/run/f"},
		"file:///var/log/a%20b":        {kind: toFile, path: "/var/log/a b"},
		"binary:///bin/log?a=1&b=2&c=": {kind: toLogger, path: "/bin/log"},
	} {
		got, err := parseTarget(in)
		got.args = nil
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"relative", "file://relative", "http:///x", "binary://", "file:///%zz"} {
		if got, err := parseTarget(in); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	got, err := parseTarget("binary:///bin/log?b=2&a=1&c")
	if err != nil || !reflect.DeepEqual(loggerArgs(got), []string{"a", "1", "b", "2", "c"}) {
		t.Errorf("arguments %q, %v", loggerArgs(got), err)
	}
}

func FuzzParseTarget(f *testing.F) {
	f.Add("binary:///bin/log?a=1")
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := parseTarget(text); err == nil && got.kind != toNull && (got.path == "" || got.path[0] != '/') {
			t.Errorf("%q: %+v", text, got)
		}
	})
}
