package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// tree is what comments and pages can refer to: the files, the folders and the tests of the repository.
type tree struct {
	files   map[string]bool   // by path from the root, folders included
	names   map[string]bool   // last elements of the paths of files
	tests   map[string]bool   // functions of test files: tests, fuzz targets, benchmarks, examples
	top     map[string]bool   // folders of the root
	anchors map[string]string // headings of each page, as anchors between '#'
}

// referenced are the forms of a reference. A test may end in '*', which stands for any end of its name.
type referenced struct {
	test, file, path, link *regexp.Regexp
}

func forms() referenced {
	return referenced{
		test: regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark|Example)[A-Z]\w*\*?`),
		file: regexp.MustCompile(`[\w./*-]*\w\.(?:go|md|proto|sh)\b`),
		path: regexp.MustCompile(`(?:^|[^\w/.-])([a-z][\w-]*(?:/[\w.-]*\w)+)`),
		link: regexp.MustCompile(`\]\(([^)\s]+)\)`),
	}
}

// references checks every comment of a Go file and every page below root: the files, folders and tests that they name
// exist, links between pages lead to a page and its heading, and the index of the pages leads to each of them.
func references(root fs.FS) ([]string, error) {
	t, err := grow(root)
	if err != nil {
		return nil, err
	}
	var findings []string
	for _, name := range sorted(t.files) {
		var found []string
		switch path.Ext(name) {
		case ".go":
			found, err = t.comments(root, name)
		case ".md":
			found, err = t.page(root, name)
		}
		if err != nil {
			return nil, err
		}
		findings = append(findings, found...)
	}
	return append(findings, t.index(root)...), nil
}

func sorted(set map[string]bool) []string {
	var out []string
	for name := range set {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// grow reads which files, tests and headings there are.
func grow(root fs.FS) (*tree, error) {
	t := &tree{files: map[string]bool{}, names: map[string]bool{}, tests: map[string]bool{}, top: map[string]bool{}, anchors: map[string]string{}}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark|Example)\w*)\(`)
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if d.IsDir() && slices.Contains([]string{".git", "bin", "bench/results"}, name) {
			return fs.SkipDir
		}
		t.files[name] = true
		if d.IsDir() {
			t.top[strings.Split(name, "/")[0]] = true
			return nil
		}
		t.names[path.Base(name)] = true
		text := ""
		if strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, ".md") {
			b, err := fs.ReadFile(root, name)
			if err != nil {
				return err
			}
			text = string(b)
		}
		if strings.HasSuffix(name, ".md") {
			t.anchors[name] = anchors(text)
		}
		for _, m := range function.FindAllStringSubmatch(text, -1) {
			t.tests[m[1]] = true
		}
		return nil
	})
	return t, err
}

// anchors returns the anchors of a page's headings, as forges derive them, each followed by '#'.
func anchors(text string) string {
	out := "#"
	drop := regexp.MustCompile(`[^\w\- ]`)
	for line := range strings.Lines(text) {
		if title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			title = strings.ToLower(strings.TrimSpace(title))
			out += strings.ReplaceAll(drop.ReplaceAllString(title, ""), " ", "-") + "#"
		}
	}
	return out
}

// comments checks the comments of a Go file that is not generated.
func (t *tree) comments(root fs.FS, name string) ([]string, error) {
	src, err := fs.ReadFile(root, name)
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", name, err)
	}
	if ast.IsGenerated(file) {
		return nil, nil
	}
	var findings []string
	for _, g := range file.Comments {
		for _, c := range g.List {
			findings = append(findings, t.text(name, fset.Position(c.Pos()).Line, c.Text)...)
		}
	}
	return findings, nil
}

// page checks a page.
func (t *tree) page(root fs.FS, name string) ([]string, error) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return nil, err
	}
	findings := t.text(name, 1, string(text))
	at := 0
	for line := range strings.Lines(string(text)) {
		at++
		for _, m := range forms().link.FindAllStringSubmatch(line, -1) {
			if target := linked(name, m[1]); target != "" && !t.files[target] {
				findings = append(findings, fmt.Sprintf("%s:%d: link to %s, which does not exist", name, at, m[1]))
			} else if _, anchor, ok := strings.Cut(m[1], "#"); ok && target != "" && !strings.Contains(t.anchors[target], "#"+anchor+"#") {
				findings = append(findings, fmt.Sprintf("%s:%d: link to %s: no such heading", name, at, m[1]))
			}
		}
	}
	return findings, nil
}

// linked returns the file that a link of a page leads to, and "" if it leads out of the repository.
func linked(page, link string) string {
	target, _, _ := strings.Cut(link, "#")
	if strings.Contains(target, ":") {
		return ""
	}
	if target == "" {
		return page
	}
	return path.Join(path.Dir(page), target)
}

// text checks the tests, files and folders that a text names, which begins at a line of the file name. A path counts if
// it begins with a folder of the root.
func (t *tree) text(name string, first int, text string) []string {
	var findings []string
	at := first - 1
	for line := range strings.Lines(text) {
		at++
		for _, test := range forms().test.FindAllString(line, -1) {
			if !t.test(test) {
				findings = append(findings, fmt.Sprintf("%s:%d: no test is named %s", name, at, test))
			}
		}
		for _, file := range forms().file.FindAllString(line, -1) {
			if !t.file(name, file) {
				findings = append(findings, fmt.Sprintf("%s:%d: %s does not exist", name, at, file))
			}
		}
		for _, m := range forms().path.FindAllStringSubmatch(line, -1) {
			if t.top[strings.Split(m[1], "/")[0]] && path.Ext(m[1]) == "" && !t.files[m[1]] {
				findings = append(findings, fmt.Sprintf("%s:%d: %s does not exist", name, at, m[1]))
			}
		}
	}
	return findings
}

func (t *tree) test(name string) bool {
	prefix, ok := strings.CutSuffix(name, "*")
	if !ok {
		return t.tests[name]
	}
	for test := range t.tests {
		if strings.HasPrefix(test, prefix) {
			return true
		}
	}
	return false
}

// file reports whether a file exists that a text of the file from names: by its path from the root or from the folder
// of from, in a Go file by the end of its path, and in a page without a folder.
func (t *tree) file(from, name string) bool {
	name = strings.TrimPrefix(name, "./")
	if strings.HasPrefix(name, "/") { // a file of the host
		return true
	}
	if strings.Contains(name, "*") {
		return t.pattern(name)
	}
	if t.files[name] || t.files[path.Join(path.Dir(from), name)] {
		return true
	}
	if !strings.Contains(name, "/") {
		return strings.HasSuffix(from, ".md") && t.names[name]
	}
	for file := range t.files {
		if strings.HasSuffix(from, ".go") && strings.HasSuffix(file, "/"+name) {
			return true
		}
	}
	return false
}

func (t *tree) pattern(name string) bool {
	for file := range t.files {
		if ok, err := path.Match(name, file); err == nil && ok {
			return true
		}
		if ok, err := path.Match(name, path.Base(file)); err == nil && ok {
			return true
		}
	}
	return false
}

// indexPage is where every page of its folder can be reached from.
const indexPage = "docs/README.md"

// index reports the pages of docs that no chain of links from the index leads to.
func (t *tree) index(root fs.FS) []string {
	if !t.files[indexPage] {
		return []string{indexPage + ": is missing: it is the index of docs"}
	}
	seen := map[string]bool{indexPage: true}
	for queue := []string{indexPage}; len(queue) > 0; queue = queue[1:] {
		text, err := fs.ReadFile(root, queue[0])
		if err != nil {
			return []string{err.Error()}
		}
		for _, m := range forms().link.FindAllStringSubmatch(string(text), -1) {
			target := linked(queue[0], m[1])
			if strings.HasPrefix(target, "docs/") && strings.HasSuffix(target, ".md") && t.files[target] && !seen[target] {
				seen[target] = true
				queue = append(queue, target)
			}
		}
	}
	var findings []string
	for _, name := range sorted(t.files) {
		if strings.HasPrefix(name, "docs/") && strings.HasSuffix(name, ".md") && !seen[name] {
			findings = append(findings, fmt.Sprintf("%s: cannot be reached from %s", name, indexPage))
		}
	}
	return findings
}
