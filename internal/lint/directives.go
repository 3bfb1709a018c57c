package main

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

// linterConfig is the configuration of golangci-lint.
const linterConfig = ".golangci.yml"

// directives reports the directives of Go files that speak to a linter that does not run. nolintlint knows only those
// that run, and requires a reason.
func directives(p *project) ([]string, error) {
	config, err := fs.ReadFile(p.tree, linterConfig)
	if err != nil {
		return nil, fmt.Errorf("read the list of linters: %w", err)
	}
	running := enabled(string(config))
	form := regexp.MustCompile(`^//\s*(?:nolint:([\w,]+)|lint:(?:file-)?ignore)`)
	return eachFile(func(c *checker) {
		for _, g := range c.file.Comments {
			for _, comment := range g.List {
				m := form.FindStringSubmatch(comment.Text)
				if m == nil {
					continue
				}
				for linter := range strings.SplitSeq(m[1], ",") {
					if !slices.Contains(running, linter) {
						c.report(comment.Pos(), "directive to a linter that does not run: %s", m[0])
					}
				}
			}
		}
	})(p)
}

// enabled returns the linters and formatters that a configuration enables: the items of its lists "enable".
func enabled(config string) []string {
	var names []string
	listing := false
	for line := range strings.Lines(config) {
		item, ok := strings.CutPrefix(strings.TrimSpace(line), "- ")
		if listing && ok {
			names = append(names, item)
			continue
		}
		listing = strings.TrimSpace(line) == "enable:"
	}
	return names
}
