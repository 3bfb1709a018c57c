package main

import (
	"regexp"
	"strings"
	"testing"
)

// Every phrase is found in a comment, a string and a page, and on two lines.
func TestWords_EachPhrase(t *testing.T) {
	v := newVocabulary()
	for _, p := range phrases() {
		for phrase := range strings.SplitSeq(regexp.MustCompile(`^\(\?:([\w|]+)\) (\w+)$`).ReplaceAllString(p.pattern, "is $2"), "|") {
			for name, text := range map[string]string{
				"words": "it " + phrase + " it", "capital": strings.ToUpper(phrase[:1]) + phrase[1:] + " it",
				"lines": "it " + strings.ReplaceAll(phrase, " ", "\n") + " it",
			} {
				if found := v.text("x.md", 7, text); len(found) != 1 || !strings.HasPrefix(found[0], "x.md:7: ") {
					t.Errorf("%s, %s: %q", phrase, name, found)
				}
			}
		}
	}
	for text, want := range map[string]int{
		"if there is no lock, and it is no longer held": 0,
		"if there\nis no lock":                          0,
		"a teller, the upshot":                          0,
		"create-told":                                   0,
		"web:nobody":                                    0,
		"read by nobody":                                1,
		"| avoid | prefer |\n| --- | --- |\n| tells | reports |\n\nIt tells.": 1,
	} {
		if found := v.text("x.md", 1, text); len(found) != want {
			t.Errorf("%q: %q", text, found)
		}
	}
	root := plant(t, map[string]string{"client/told.go": "package client\n\n// report is\n// told.\nfunc report() string {\n\treturn `\n\tupon`\n}\n"})
	p, err := load(root)
	if err != nil {
		t.Fatal(err)
	}
	found, err := words(p)
	if got := strings.Join(found, "\n"); err != nil || len(found) != 2 || !strings.Contains(got, `client/told.go:4: "told"`) || !strings.Contains(got, `client/told.go:7: "upon"`) {
		t.Errorf("%q, %v", found, err)
	}
}
