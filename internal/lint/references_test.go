package main

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// repository is a tree without findings, with files added or replaced.
func repository(files map[string]string) fstest.MapFS {
	all := map[string]string{
		"shim/start.go":        "// Package shim starts what create.go has created; see docs/api.md and runtime/launch.go.\npackage shim\n",
		"shim/create.go":       "package shim\n",
		"shim/start_test.go":   "package shim\nfunc TestStart_Fails(t *testing.T) {}\nfunc FuzzStart(f *testing.F) {}\n",
		"runtime/launch.go":    "package runtime\n",
		"docs/README.md":       "# Index\n[API](api.md#two-sockets), [web](https://example.com/docs/no.md)\n",
		"docs/api.md":          "# API\n## Two `sockets`\n`shim/start.go`, `create.go`, `TestStart_*`, FuzzStart; /etc/docs/x.md\n[more](../docs/sub/more.md)\n",
		"docs/sub/more.md":     "[back](#top)\n# Top\n",
		"ARCHITECTURE.md":      "[index](docs/README.md) `shim`, shim/start_test.go, `shim/*_test.go`\n",
		"proto/x.pb.go":        "// Code generated from gone.go. DO NOT EDIT.\npackage x\n",
		"bench/results/old.md": "[gone](gone.md)\n",
	}
	for name, text := range files {
		all[name] = text
	}
	fsys := fstest.MapFS{}
	for name, text := range all {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}

func TestReferences_PlantedViolations(t *testing.T) {
	for _, tc := range []struct {
		name, file, text, want string
	}{
		{"nothing is planted", "docs/api.md", "# API\n## Two sockets\n[more](sub/more.md)\n", ""},
		{"file of another folder in a comment", "shim/exit.go", "package shim\n\n// exit is called by launch.go.\nfunc exit() {}\n", "shim/exit.go:3: launch.go does not exist"},
		{"path in a comment", "shim/exit.go", "package shim\n\n/* exit\nis called by shim/serve.go. */\nfunc exit() {}\n", "shim/exit.go:4: shim/serve.go does not exist"},
		{"end of a path in a comment", "shim/exit.go", "// Package shim: see launch/runtime.go.\npackage shim\n", "shim/exit.go:1: launch/runtime.go does not exist"},
		{"folder in a comment", "shim/exit.go", "// Package shim: see runtime/gone.\npackage shim\n", "shim/exit.go:1: runtime/gone does not exist"},
		{"test in a comment", "shim/exit.go", "// Package shim: shown by TestExit.\npackage shim\n", "shim/exit.go:1: no test is named TestExit"},
		{"file in a page", "docs/sub/more.md", "# Top\n`shim/gone.go`\n", "docs/sub/more.md:2: shim/gone.go does not exist"},
		{"file without its folder in a page", "docs/sub/more.md", "# Top\n`gone.go`\n", "docs/sub/more.md:2: gone.go does not exist"},
		{"folder in a page", "docs/sub/more.md", "# Top\n`shim/gone`\n", "docs/sub/more.md:2: shim/gone does not exist"},
		{"test in a page", "docs/sub/more.md", "# Top\n`TestStart`\n", "docs/sub/more.md:2: no test is named TestStart"},
		{"tests in a page", "docs/sub/more.md", "# Top\n`TestExit_*`\n", "docs/sub/more.md:2: no test is named TestExit_*"},
		{"link", "docs/sub/more.md", "# Top\n[api](api.md)\n", "docs/sub/more.md:2: link to api.md, which does not exist"},
		{"heading", "docs/sub/more.md", "# Top\n[api](../api.md#one-socket)\n", "docs/sub/more.md:2: link to ../api.md#one-socket: no such heading"},
		{"page without a link to it", "docs/lost.md", "# Lost\n", "docs/lost.md: cannot be reached from docs/README.md"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			found, err := references(repository(map[string]string{tc.file: tc.text}))
			if err != nil {
				t.Fatal(err)
			}
			if tc.want == "" && len(found) > 0 || tc.want != "" && !slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(f, tc.want) }) {
				t.Errorf("findings %q, want %q", found, tc.want)
			}
			if len(found) > 2 {
				t.Errorf("findings %q, more than the planted ones", found)
			}
		})
	}
}

func TestReferences_IndexIsMissing(t *testing.T) {
	fsys := repository(nil)
	delete(fsys, indexPage)
	found, err := references(fsys)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(f, indexPage+": is missing") }) {
		t.Errorf("findings %q", found)
	}
}
