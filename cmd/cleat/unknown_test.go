package main

import (
	"regexp"
	"strings"
	"testing"
)

func TestMistypedCommand_SuggestsSimilarOnes(t *testing.T) {
	for args, want := range map[string]string{
		"pll busybox": "did you mean cleat pull?",
		"psuh":        "did you mean cleat ps or cleat push?",
		"inspec":      "did you mean cleat inspect?",
		"imag ls":     "did you mean cleat image?",
		"image lss":   "did you mean cleat image ls?",
		"image impot": "did you mean cleat image import?",
		"ns crate":    "did you mean cleat namespace create?",
		"pau":         "did you mean cleat pause?",
		"teleport":    "cleat help lists the commands",
		"shim fly":    "cleat help shim lists the commands",
	} {
		got := invoke(t, nil, "", strings.Fields(args)...)
		_, hint, _ := strings.Cut(got.err, "\nhint: ")
		if got.code != 1 || got.out != "" || !strings.HasPrefix(got.err, "cleat: no command \"") || hint != want+"\n" {
			t.Errorf("%s: %+v, want the hint %q", args, got, want)
		}
	}
}

// A command of Docker that is out of scope is refused with one line about the tool for it. What the line says of
// cleat must exist.
func TestDockerCommand_HintNamesTheTool(t *testing.T) {
	named := regexp.MustCompile(`cleat ([a-z]+(?: [a-z]+)?)((?: --[a-z]+)*)`)
	hints := dockerHints()
	for _, command := range []string{"build", "network", "volume", "compose", "swarm", "login", "cp", "start", "image build"} {
		if hints[command] == "" {
			t.Errorf("%s: no hint", command)
		}
	}
	for command, hint := range hints {
		got := invoke(t, nil, "", append(strings.Fields(command), "--flag", "x")...)
		if got.code != 1 || got.err != "cleat: no command \""+command+"\"\nhint: "+hint+"\n" || strings.Contains(hint, "\n") {
			t.Errorf("%s: %+v", command, got)
		}
		for _, m := range named.FindAllStringSubmatch(hint, -1) {
			words := strings.Fields(m[1])
			if strings.Contains("does manages", words[0]) {
				continue // a sentence about cleat
			}
			help := invoke(t, nil, "", append([]string{"help"}, words...)...)
			if help.code != 0 && len(words) > 1 {
				help = invoke(t, nil, "", "help", words[0])
			}
			for _, flag := range append(strings.Fields(m[2]), "--help") {
				if help.code != 0 || !strings.Contains(help.out, flag+" ") {
					t.Errorf("%s: the hint names %q, which does not exist", command, m[0])
				}
			}
		}
	}
}
