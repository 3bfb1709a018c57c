package main

import (
	"go/ast"
	"go/token"
	"strings"
)

// todo reports a task without the number of its issue.
func (c *checker) todo() {
	for _, g := range c.file.Comments {
		for _, word := range []string{"TODO", "FIXME", "XXX"} {
			if strings.Contains(g.Text(), word) && !strings.Contains(g.Text(), word+"(#") {
				c.report(g.Pos(), "%s without an issue's number", word)
			}
		}
	}
}

// Limits of product code, in lines.
const (
	maxFunction = 60
	maxFile     = 400
)

// lengths reports functions and files of product code that are too long.
func (c *checker) lengths() {
	if c.test {
		return
	}
	if n := c.fset.Position(c.file.FileEnd).Line; n > maxFile {
		c.report(c.file.FileEnd, "file of %d lines, at most %d: split it by idea", n, maxFile)
	}
	for _, d := range c.file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if n := c.fset.Position(f.End()).Line - c.fset.Position(f.Pos()).Line + 1; n > maxFunction {
			c.report(f.Pos(), "%s has %d lines, at most %d: split it by step", f.Name.Name, n, maxFunction)
		}
	}
}

// wait reports a receive from time.After as a statement, which sleeps. A case of a select is a limit.
func (c *checker) wait() {
	cases := make(map[ast.Stmt]bool)
	ast.Inspect(c.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CommClause:
			cases[n.Comm] = true
		case *ast.ExprStmt:
			if !cases[n] && receivesAfter(n) {
				c.report(n.Pos(), "time.After as a statement: wait for the state, not for a time")
			}
		}
		return true
	})
}

func receivesAfter(s *ast.ExprStmt) bool {
	receive, ok := s.X.(*ast.UnaryExpr)
	if !ok || receive.Op != token.ARROW {
		return false
	}
	call, ok := receive.X.(*ast.CallExpr)
	if !ok {
		return false
	}
	return called(call) == "time.After"
}

// called returns the name of the function that a call names directly, with that of its package.
func called(call *ast.CallExpr) string {
	if fun, ok := call.Fun.(*ast.SelectorExpr); ok {
		if id, ok := fun.X.(*ast.Ident); ok {
			return id.Name + "." + fun.Sel.Name
		}
	}
	return ""
}
