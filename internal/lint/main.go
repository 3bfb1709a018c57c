// Command lint holds the rules that are cleat's own: which folder may import which, which modules the product must
// use, what code, texts and file names look like, and that what comments and pages name exists. all lists them.
// `make lint` runs it in the root of the repository; it prints a line for each finding, which ends with the name of
// the rule, and exits 1 if there is any. The rules of golangci-lint are in .golangci.yml.
package main

import (
	"fmt"
	"os"
	"sort"
)

// rule is a check of the whole repository.
type rule struct {
	name  string
	check func(*project) ([]string, error)
}

// all returns every rule. Each has a planted violation in planted_test.go.
func all() []rule {
	return []rule{
		{"floors", func(p *project) ([]string, error) { return floors(p.pkgs), nil }},
		{"dependencies", shimDependencies},
		{"generators", func(p *project) ([]string, error) { return generators(p.pkgs), nil }},
		{"given", func(p *project) ([]string, error) { return givenInUse(p.pkgs), nil }},
		{"advice", eachFile((*checker).advice)},
		{"wait", eachFile((*checker).wait)},
		{"todo", eachFile((*checker).todo)},
		{"length", eachFile((*checker).lengths)},
		{"names", fileNames},
		{"directives", directives},
		{"words", words},
		{"references", func(p *project) ([]string, error) { return references(p.tree) }},
	}
}

func main() {
	findings, err := run(".", len(os.Args) > 1 && os.Args[1] == "-write")
	if err != nil {
		fmt.Fprintln(os.Stderr, "lint:", err)
		os.Exit(2)
	}
	for _, f := range findings {
		fmt.Println(f)
	}
	if len(findings) > 0 {
		os.Exit(1)
	}
}

// run checks the repository at root and returns the findings, sorted. With write, it writes the shim's list of
// dependencies before.
func run(root string, write bool) ([]string, error) {
	p, err := load(root)
	if err != nil {
		return nil, err
	}
	if write {
		if err := writeShimList(p); err != nil {
			return nil, err
		}
	}
	var findings []string
	for _, r := range all() {
		found, err := r.check(p)
		if err != nil {
			return nil, fmt.Errorf("check rule %s: %w", r.name, err)
		}
		for _, f := range found {
			findings = append(findings, fmt.Sprintf("%s (%s)", f, r.name))
		}
	}
	sort.Strings(findings)
	return findings, nil
}
