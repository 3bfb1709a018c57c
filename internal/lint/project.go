package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
)

// project is what the rules check.
type project struct {
	root  string
	tree  fs.FS
	pkgs  []listed
	files []*checker // Go files of every module, those that are generated excepted
}

// listed is what `go list -json` prints for a package.
type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// load lists the packages of the main module at root, and parses the files of every module.
func load(root string) (*project, error) {
	pkgs, err := list(root)
	if err != nil {
		return nil, err
	}
	p := &project{root: root, tree: os.DirFS(root), pkgs: pkgs}
	return p, walk(p.tree, func(name string) error {
		if path.Ext(name) != ".go" {
			return nil
		}
		c, err := parseFile(p.tree, name)
		if err != nil {
			return err
		}
		if !ast.IsGenerated(c.file) {
			p.files = append(p.files, c)
		}
		return nil
	})
}

// walk calls visit for each file of the repository, those that are not committed excepted.
func walk(tree fs.FS, visit func(name string) error) error {
	return fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", "bin", "bench/results"}, name) {
				return fs.SkipDir
			}
			return nil
		}
		return visit(name)
	})
}

func parseFile(tree fs.FS, name string) (*checker, error) {
	src, err := fs.ReadFile(tree, name)
	if err != nil {
		return nil, err
	}
	c := &checker{fset: token.NewFileSet(), folder: path.Dir(name), name: path.Base(name), test: strings.HasSuffix(name, "_test.go")}
	if c.file, err = parser.ParseFile(c.fset, name, src, parser.ParseComments|parser.SkipObjectResolution); err != nil {
		return nil, fmt.Errorf("parse %s: %w", name, err)
	}
	return c, nil
}

func list(root string) ([]listed, error) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = root
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

// checker is a Go file, with the findings of the rule that checks it.
type checker struct {
	fset         *token.FileSet
	file         *ast.File
	folder, name string
	test         bool
	findings     []string
}

func (c *checker) path() string { return c.folder + "/" + c.name }

func (c *checker) report(at token.Pos, format string, args ...any) {
	c.findings = append(c.findings, fmt.Sprintf("%s:%d: %s", c.path(), c.fset.Position(at).Line, fmt.Sprintf(format, args...)))
}

// eachFile returns the check of a rule that looks at one Go file at a time.
func eachFile(check func(*checker)) func(*project) ([]string, error) {
	return func(p *project) ([]string, error) {
		var findings []string
		for _, c := range p.files {
			c.findings = nil
			check(c)
			findings = append(findings, c.findings...)
		}
		return findings, nil
	}
}
