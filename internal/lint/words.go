package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// phrase is what a text must not contain, with the terms to use instead.
type phrase struct{ pattern, prefer string }

// phrases returns the word list of CONTRIBUTING.md. A space stands for any space, a line break included.
func phrases() []phrase {
	return []phrase{
		{`tell|tells|told|telling`, "report, return, publish, show; distinguish"},
		{`hear|hears|heard|hearing`, "receive, be notified of"},
		{`take away|takes away|took away|taken away|taking away`, "delete, remove"},
		{`go on|goes on|went on|going on`, "continue"},
		{`mend|mends|mended|mending`, "repair"},
		{`let go|lets go|letting go`, "release, resume"},
		{`come to|comes to|came to|coming to`, "reach, get, become"},
		{`bury|buries|buried|burying`, "clean up, remove"},
		{`furnish|furnishes|furnished|furnishing`, "prepare, complete"},
		{`whoever|those who|somebody|nobody|anybody`, "the caller, client, user or process"},
		{`meanwhile`, "concurrently, in the background"},
		{`beside`, "next to, in parallel with"},
		{`upon`, "on"},
		{`(?:is|are|was|were) no`, "is not a"},
		{`taken for|take for|takes for|took for`, "treated as, mistaken for"},
		{`last word`, "take precedence"},
	}
}

// allowed returns the texts in which a phrase is not wording of ours, each with its reason.
func allowed() map[string]string {
	return map[string]string{
		`\bthere (?:is|are|was|were) no\b`:                               "the only natural form",
		`\b(?:is|are|was|were) no (?:longer|such|more than|less than)\b`: "the only natural form",
		`^(?:\w+:)?nobody(?::.*)?$`:                                      "a user's name, alone in a string",
		`\b(?:create|exit|delete)-told\b`:                                "files of an earlier version",
		`(?ms)^\| avoid \| prefer \|$.*?(?:^$|\z)`:                       "the word list for contributors",
	}
}

// words reports the phrases of the word list in comments and strings of Go files, in pages, scripts and messages.
func words(p *project) ([]string, error) {
	v := newVocabulary()
	var findings []string
	for _, c := range p.files {
		if c.folder != "internal/lint" || !strings.HasPrefix(c.name, "words") {
			findings = append(findings, v.source(c)...)
		}
	}
	err := walk(p.tree, func(name string) error {
		if !slices.Contains([]string{".md", ".sh", ".proto"}, path.Ext(name)) {
			return nil
		}
		text, err := fs.ReadFile(p.tree, name)
		findings = append(findings, v.text(name, 1, string(text))...)
		return err
	})
	return findings, err
}

// vocabulary is the compiled word list.
type vocabulary struct {
	phrases []*regexp.Regexp
	prefer  []string
	allowed []*regexp.Regexp
}

func newVocabulary() *vocabulary {
	v := &vocabulary{}
	for _, p := range phrases() {
		v.phrases = append(v.phrases, regexp.MustCompile(`(?i)\b(?:`+strings.ReplaceAll(p.pattern, " ", `\s+`)+`)\b`))
		v.prefer = append(v.prefer, p.prefer)
	}
	for pattern := range allowed() {
		v.allowed = append(v.allowed, regexp.MustCompile(`(?i)`+strings.ReplaceAll(pattern, " ", `\s+`)))
	}
	return v
}

// text reports the phrases in a text that begins at a line of the file name.
func (v *vocabulary) text(name string, first int, text string) []string {
	for _, a := range v.allowed {
		text = a.ReplaceAllStringFunc(text, blank)
	}
	var findings []string
	for i, p := range v.phrases {
		for _, at := range p.FindAllStringIndex(text, -1) {
			line := first + strings.Count(text[:at[0]], "\n")
			findings = append(findings, fmt.Sprintf("%s:%d: %q: want %s", name, line, text[at[0]:at[1]], v.prefer[i]))
		}
	}
	return findings
}

// blank returns a text of the same lines without words.
func blank(text string) string { return strings.Repeat("\n", strings.Count(text, "\n")) }

// source checks the comments and strings of a Go file.
func (v *vocabulary) source(c *checker) []string {
	var findings []string
	for _, g := range c.file.Comments {
		var lines []string
		for _, line := range g.List {
			lines = append(lines, strings.TrimPrefix(line.Text, "//"))
		}
		findings = append(findings, v.text(c.path(), c.fset.Position(g.Pos()).Line, strings.Join(lines, "\n"))...)
	}
	ast.Inspect(c.file, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			findings = append(findings, v.text(c.path(), c.fset.Position(lit.Pos()).Line, spoken(lit.Value))...)
		}
		return true
	})
	return findings
}

// spoken returns the text of a literal. Line breaks of an interpreted one are spaces, so that lines can be counted.
func spoken(literal string) string {
	text, err := strconv.Unquote(literal)
	if err != nil || strings.HasPrefix(literal, "`") {
		return strings.Trim(literal, "`")
	}
	return strings.ReplaceAll(text, "\n", " ")
}
