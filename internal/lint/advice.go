package main

import (
	"go/ast"
	"go/token"
	"regexp"
)

// advice recognises what an error's text must not hold: what to do about it is the hint of the command line, by the
// error's reason.
func advice() *regexp.Regexp {
	return regexp.MustCompile("(?i)(try again|ask again|see `|see docs/|cleat doctor|cleat shim|pull it|free some space" +
		`|[:;,] (install|use|give|choose|remove|stop|start|put|leave|log in|check|name|make|mount|pull|wait) (it|one|that|this|these|them|first|another|the|a|with|by|as|--)\b` +
		`|[:;] (install|use|stop) )`)
}

// errorText reports advice in the text of an error. Programs print advice directly.
func (c *checker) errorText(call *ast.CallExpr, pkg, name string) {
	if c.test || within(c.folder, "cmd") || within(c.folder, "internal/lint") || len(call.Args) == 0 {
		return
	}
	if pkg+"."+name != "fmt.Errorf" && pkg+"."+name != "errors.New" {
		return
	}
	text, ok := call.Args[0].(*ast.BasicLit)
	if !ok || text.Kind != token.STRING {
		return
	}
	if found := advice().FindString(text.Value); found != "" {
		c.report(call.Pos(), "advice in an error: %q: give the error a reason (proto/reason), and that a hint (cmd/cleat/advice.go)", found)
	}
}
