// Command lint holds the rules that are cleat's own: which folder may import which (floors.go),
// which modules the product must use (given.go), what no code may do (rules.go), and that what comments
// and pages name exists (references.go). `make lint` runs it in the root of the repository; it prints a
// line a finding and exits 1 if there is any.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sort"
)

// listed is what `go list -json` tells of a package.
type listed struct {
	ImportPath   string
	Dir          string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	Deps         []string
}

func main() {
	findings, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lint:", err)
		os.Exit(2)
	}
	sort.Strings(findings)
	for _, f := range findings {
		fmt.Println(f)
	}
	if len(findings) > 0 {
		os.Exit(1)
	}
}

func run() ([]string, error) {
	pkgs, err := list("./...")
	if err != nil {
		return nil, err
	}
	findings := floors(pkgs)
	deps, err := shimDependencies(pkgs)
	if err != nil {
		return nil, err
	}
	findings = append(findings, deps...)
	findings = append(findings, generators(pkgs)...)
	findings = append(findings, givenInUse(pkgs)...)
	for _, p := range pkgs {
		f, err := rules(p)
		if err != nil {
			return nil, err
		}
		findings = append(findings, f...)
	}
	refs, err := references(os.DirFS("."))
	if err != nil {
		return nil, err
	}
	return append(findings, refs...), nil
}

// list asks the go command.
func list(patterns ...string) ([]listed, error) {
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,GoFiles,TestGoFiles,XTestGoFiles,Imports,Deps"}, patterns...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var pkgs []listed
	dec := json.NewDecoder(out)
	for {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("read go list: %w", err)
		}
		pkgs = append(pkgs, p)
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	return pkgs, nil
}
