package main

import (
	"go/ast"
	"go/token"
	"regexp"
)

// advised recognises what an error's text must not hold: what to do about it is the hint of the command line, by the
// error's reason.
func advised() *regexp.Regexp {
	return regexp.MustCompile("(?i)(try again|ask again|see `|see docs/|cleat doctor|cleat shim|pull it|free some space" +
		`|[:;,] (install|use|give|choose|remove|stop|start|put|leave|log in|check|name|make|mount|pull|wait) (it|one|that|this|these|them|first|another|the|a|with|by|as|--)\b` +
		`|[:;] (install|use|stop) )`)
}

// advice reports advice in the text of an error. Programs print advice directly.
func (c *checker) advice() {
	if c.test || within(c.folder, "cmd") || within(c.folder, "internal/lint") {
		return
	}
	ast.Inspect(c.file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 || called(call) != "fmt.Errorf" && called(call) != "errors.New" {
			return true
		}
		text, ok := call.Args[0].(*ast.BasicLit)
		if !ok || text.Kind != token.STRING {
			return true
		}
		if found := advised().FindString(text.Value); found != "" {
			c.report(call.Pos(), "advice in an error: %q: give the error a reason (proto/reason), and that a hint (cmd/cleat/advice.go)", found)
		}
		return true
	})
}
