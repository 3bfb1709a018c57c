package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
)

// rules checks one package's files.
func rules(p listed) ([]string, error) {
	folder := strings.TrimPrefix(p.ImportPath, module)
	var findings []string
	all := append(append(append([]string{}, p.GoFiles...), p.TestGoFiles...), p.XTestGoFiles...)
	for _, name := range all {
		if strings.HasSuffix(name, ".pb.go") {
			continue
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", name, err)
		}
		c := checker{fset: fset, folder: folder, name: name, test: strings.HasSuffix(name, "_test.go")}
		c.file(file)
		c.lengths(file)
		findings = append(findings, c.findings...)
	}
	return findings, nil
}

// checker looks at one file.
type checker struct {
	fset         *token.FileSet
	folder, name string
	test         bool
	findings     []string
}

func (c *checker) report(at token.Pos, format string, args ...any) {
	c.findings = append(c.findings, fmt.Sprintf("%s/%s:%d: %s", c.folder, c.name, c.fset.Position(at).Line, fmt.Sprintf(format, args...)))
}

func (c *checker) file(file *ast.File) {
	for _, g := range file.Comments {
		for _, word := range []string{"TODO", "FIXME", "XXX"} {
			if strings.Contains(g.Text(), word) && !strings.Contains(g.Text(), word+"(#") {
				c.report(g.Pos(), "%s without an issue's number", word)
			}
		}
	}
	cases := make(map[ast.Stmt]bool) // of select statements
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			c.call(n)
		case *ast.CommClause:
			cases[n.Comm] = true
		case *ast.ExprStmt:
			if !cases[n] {
				c.statement(n)
			}
		}
		return true
	})
}

// Limits of product code, in lines. Generated files have none.
const (
	maxFunction = 60
	maxFile     = 400
)

// lengths reports functions and files of product code that are too long.
func (c *checker) lengths(file *ast.File) {
	if c.test || ast.IsGenerated(file) {
		return
	}
	if n := c.fset.Position(file.FileEnd).Line; n > maxFile {
		c.report(file.FileEnd, "file of %d lines, at most %d: split it by idea", n, maxFile)
	}
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if n := c.fset.Position(f.End()).Line - c.fset.Position(f.Pos()).Line + 1; n > maxFunction {
			c.report(f.Pos(), "%s has %d lines, at most %d: split it by step", f.Name.Name, n, maxFunction)
		}
	}
}

// statement reports a wait for a time, which is a sleep by another name.
func (c *checker) statement(s *ast.ExprStmt) {
	receive, ok := s.X.(*ast.UnaryExpr)
	if !ok || receive.Op != token.ARROW {
		return
	}
	call, ok := receive.X.(*ast.CallExpr)
	if !ok {
		return
	}
	if fun, ok := call.Fun.(*ast.SelectorExpr); ok && fun.Sel.Name == "After" {
		if id, ok := fun.X.(*ast.Ident); ok && id.Name == "time" {
			c.report(s.Pos(), "time.After as a statement: wait for the state, not for a time")
		}
	}
}

func (c *checker) call(call *ast.CallExpr) {
	pkg, name := "", ""
	switch fun := call.Fun.(type) {
	case *ast.Ident:
		name = fun.Name
	case *ast.SelectorExpr:
		id, ok := fun.X.(*ast.Ident)
		if !ok {
			return
		}
		pkg, name = id.Name, fun.Sel.Name
	default:
		return
	}
	c.errorText(call, pkg, name)
}
