//go:build docgen

// With the build tag docgen this program is the generator of the command line's reference instead of the command line:
//
//	go run -tags docgen ./cmd/cleat markdown|man DIRECTORY
//
// It stands here because the commands are in this package, and behind a tag because its libraries must not be linked
// into cleat.
package main

import (
	"cmp"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/cleatproject/cleat/internal/version"
)

func main() {
	if err := generate(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

// generate writes one page for each command. The pages do not depend on the environment of the generator.
func generate(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("%d arguments given; want: markdown|man DIRECTORY", len(args))
	}
	root := (&app{env: func(string) string { return "" }}).commands(nil)
	root.DisableAutoGenTag = true
	describe(root)
	switch args[0] {
	case "markdown":
		return doc.GenMarkdownTree(root, args[1])
	case "man":
		return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "cleat " + version.Version(), Manual: "cleat"}, args[1])
	}
	return fmt.Errorf("format %q: want markdown or man", args[0])
}

// describe adds the aliases, which the pages do not show otherwise, to the texts of the commands.
func describe(cmd *cobra.Command) {
	if aliases := aliasesOf(cmd); len(aliases) > 0 {
		cmd.Long = cmp.Or(cmd.Long, upperFirst(cmd.Short)+".") + "\n\nAliases: " + strings.Join(aliases, ", ")
	}
	for _, c := range cmd.Commands() {
		describe(c)
	}
}
