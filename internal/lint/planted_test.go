package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// planted returns a violation of each rule: the files that it adds to a clean repository, or replaces there.
func planted() map[string]map[string]string {
	long := strings.Repeat("\n", maxFile)
	return map[string]map[string]string{
		"floors":       {"shim/shim.go": "// Package shim is a shim.\npackage shim\n\nimport _ \"" + module + "client\"\n"},
		"dependencies": {"cmd/containerd-shim-cleat-v2/main.go": "package main\n\nimport _ \"github.com/containerd/console\"\n\nfunc main() {}\n"},
		"generators":   {"cmd/cleat/pages.go": "package main\n\nimport _ \"github.com/spf13/cobra/doc\"\n"},
		"given":        {"client/given.go": "package client\n"},
		"advice":       {"client/error.go": "package client\n\nvar errBusy = errors.New(\"image is locked; try again\")\n"},
		"wait":         {"integration/wait_test.go": "package integration\n\nfunc wait() { <-time.After(1) }\n"},
		"todo":         {"client/todo.go": "package client\n\n// " + "TODO: later\n"},
		"length":       {"client/long.go": "package client\n" + long},
		"names":        {"integration/logwriter_test.go": "package integration\n\ntype logWriter struct{}\n"},
		"directives":   {"integration/directive_test.go": "package integration\n\nvar names []string //nolint:gochecknoglobal // misspelt\n"},
		"words":        {"docs/README.md": "# Index\nThe daemon tel" + "ls the client.\n"},
		"references":   {"docs/README.md": "# Index\n`client/gone.go`\n"},
	}
}

// plant writes a repository without findings, and the files over it.
func plant(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	modules := "module " + strings.TrimSuffix(module, "/") + "\n\ngo 1.26\n"
	imports := "package client\n\nimport (\n"
	for _, m := range append(given(), "github.com/spf13/cobra/doc") {
		stub := "stub/" + filepath.Base(m)
		modules += fmt.Sprintf("\nrequire %s v0.0.0\n\nreplace %[1]s => ./%[2]s\n", m, stub)
		write(stub+"/go.mod", "module "+m+"\n")
		write(stub+"/stub.go", "// Package stub stands for a module.\npackage stub\n")
		if m != "github.com/spf13/cobra/doc" {
			imports += "\t_ \"" + m + "\"\n"
		}
	}
	all := map[string]string{
		"go.mod":                               modules,
		linterConfig:                           "linters:\n  enable:\n    - gochecknoglobals\n",
		"client/given.go":                      imports + ")\n",
		"cmd/cleat/main.go":                    "package main\n\nimport _ \"" + module + "client\"\n\nfunc main() {}\n",
		"shim/shim.go":                         "// Package shim is a shim.\npackage shim\n",
		shimList:                               "\n",
		"integration/go.mod":                   "module " + module + "integration\n",
		"docs/README.md":                       "# Index\n`client/given.go`\n",
		"cmd/containerd-shim-cleat-v2/main.go": "package main\n\nfunc main() {}\n",
	}
	maps.Copy(all, files)
	for name, text := range all {
		write(name, text)
	}
	return root
}

func TestRun_ReportsThePlantedViolationOfEachRule(t *testing.T) {
	t.Run("none", func(t *testing.T) {
		if found, err := run(plant(t, nil), false); err != nil || len(found) != 0 {
			t.Errorf("%q, %v", found, err)
		}
	})
	plants := planted()
	for _, r := range all() {
		files, ok := plants[r.name]
		if !ok {
			t.Errorf("rule %s has no planted violation", r.name)
			continue
		}
		delete(plants, r.name)
		t.Run(r.name, func(t *testing.T) {
			found, err := run(plant(t, files), false)
			if err != nil {
				t.Fatal(err)
			}
			if len(found) == 0 {
				t.Error("nothing is found")
			}
			for _, f := range found {
				if !strings.HasSuffix(f, " ("+r.name+")") {
					t.Errorf("also found: %s", f)
				}
			}
		})
	}
	for name := range plants {
		t.Errorf("no rule %s", name)
	}
}
