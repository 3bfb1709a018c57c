package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatproject/cleat/client"
)

func TestShowGarbage(t *testing.T) {
	g := client.Garbage{Freed: []client.Freed{
		{Kind: "content", Namespace: "blue", Name: "sha256:00", Bytes: 2048}, {Kind: "file", Name: "7"},
	}, Omitted: 3, Bytes: 4096}
	for format, want := range map[string]string{
		"table": "KIND      NAMESPACE   NAME        SIZE\ncontent   blue        sha256:00   2.0KiB\nfile      -           7           0B\n" +
			"...       -           3 more      -\ntotal     -           5           4.0KiB\n",
		"quiet": "sha256:00\n7\n",
	} {
		l := &listFlags{format: "table", quiet: format == "quiet"}
		if got := shown(t, func(a *app) error { return showGarbage(a, l, g) }); got != want {
			t.Errorf("%s: %q, want %q", format, got, want)
		}
	}
	var j garbageJSON
	text := shown(t, func(a *app) error { return showGarbage(a, &listFlags{format: "json"}, g) })
	if err := json.Unmarshal([]byte(text), &j); err != nil || len(j.Freed) != 2 || j.Bytes != 4096 || j.Omitted != 3 {
		t.Errorf("%v %s", err, text)
	}
}

// shown runs f and returns what it wrote.
func shown(t *testing.T, f func(a *app) error) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := f(&app{stdout: out}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestChainLines(t *testing.T) {
	for want, k := range map[string]client.Kept{
		"image img\n-> content sha256:00 (target)\n   -> snapshot top of overlayfs (label x)": {Chain: []client.Reference{
			{Kind: "image", Name: "img", Via: "root"},
			{Kind: "content", Name: "sha256:00", Via: "target"},
			{Kind: "snapshot", Snapshotter: "overlayfs", Name: "top", Via: "label x"},
		}},
		"content sha256:00 (held by a call under way)":                        {Chain: []client.Reference{{Kind: "content", Name: "sha256:00", Via: "held"}}},
		"content sha256:00: nothing keeps it; the next collection removes it": {Chain: []client.Reference{{Kind: "content", Name: "sha256:00"}}},
	} {
		if got := strings.Join(chainLines(k), "\n"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
