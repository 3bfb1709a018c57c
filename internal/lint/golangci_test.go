package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// violations returns a Go file, without its package clause, for each linter, formatter and rule of .golangci.yml. A rule
// is named by its linter and the text of its finding begins with the rest.
func violations() map[string]string {
	return map[string]string{
		"containedctx":                   "import \"context\"\n\ntype held struct {\n\tctx context.Context\n}\n\nvar _ = held{}.ctx\n",
		"contextcheck":                   "import (\n\t\"context\"\n\t\"os/exec\"\n)\n\nfunc outer(ctx context.Context) error {\n\tif ctx.Err() != nil {\n\t\treturn ctx.Err()\n\t}\n\treturn inner()\n}\n\nfunc inner() error { return exec.CommandContext(context.Background(), \"x\").Run() }\n\nvar _ = outer\n",
		"errcheck":                       "import \"os\"\n\nfunc unchecked() { os.Remove(\"x\") }\n\nvar _ = unchecked\n",
		"errorlint":                      "import \"io\"\n\nfunc compared(f func() error) bool { return f() == io.ErrUnexpectedEOF }\n\nvar _ = compared\n",
		"forbidigo use of `os.Rename` ":  "import \"os\"\n\nvar _ = os.Rename(\"a\", \"b\")\n",
		"forbidigo use of `time.Sleep` ": "import \"time\"\n\nfunc sleep() { time.Sleep(1) }\n\nvar _ = sleep\n",
		"forbidigo use of `panic` ":      "func fail() { panic(1) }\n\nvar _ = fail\n",
		"forbidigo use of `log.Fatal` ":  "import \"log\"\n\nfunc fatal() { log.Fatal(1) }\n\nvar _ = fatal\n",
		"gci":                            "import (\n\t\"github.com/cleatproject/cleat/planted/sub\"\n\t\"os\"\n)\n\nvar _, _ = sub.Name, os.Args\n",
		"gochecknoglobals":               "var mutable = map[string]int{}\n",
		"gochecknoinits":                 "func init() {}\n",
		"gofumpt":                        "func blank() {\n\n\tblank()\n}\n\nvar _ = blank\n",
		"govet":                          "import \"fmt\"\n\nvar _ = fmt.Sprintf(\"%d\", \"x\")\n",
		"misspell":                       "// It " + "recie" + "ves the call.\n",
		"nilerr":                         "func swallow(f func() error) error {\n\tif err := f(); err != nil {\n\t\treturn nil\n\t}\n\treturn nil\n}\n\nvar _ = swallow\n",
		"nolintlint directive `//nolint:errcheck` should provide explanation": "import \"os\"\n\nfunc silent() {\n\tos.Remove(\"x\") //nolint:errcheck\n}\n\nvar _ = silent\n",
		"nolintlint directive `//nolint // why` should mention":               "import \"os\"\n\nfunc silent() {\n\tos.Remove(\"x\") //nolint // why\n}\n\nvar _ = silent\n",
		"nolintlint directive `//nolint:errcheck // why` is unused":           "import \"os\"\n\nvar _ = os.Args //nolint:errcheck // why\n",
		"staticcheck": "import \"strings\"\n\nvar _ = strings.Replace(\"a\", \"b\", \"c\", 0)\n",
		"unconvert":   "import \"os\"\n\nvar _ = string(os.Args[0])\n",
		"unparam":     "import \"os\"\n\nfunc ignored(n, m int) int {\n\tos.Exit(n)\n\treturn n\n}\n\nfunc calls() int { return ignored(1, 2) + ignored(3, 4) }\n\nvar _ = calls\n",

		"revive atomic: ":                  "import \"sync/atomic\"\n\nfunc add(n int64) { n = atomic.AddInt64(&n, 1); _ = n }\n\nvar _ = add\n",
		"revive blank-imports: ":           "import _ \"embed\"\n",
		"revive bool-literal-in-expr: ":    "func literal(a bool) bool { return a == true }\n\nvar _ = literal\n",
		"revive context-as-argument: ":     "import \"context\"\n\nfunc late(n int, ctx context.Context) { _, _ = n, ctx }\n\nvar _ = late\n",
		"revive context-keys-type: ":       "import \"context\"\n\nfunc key(ctx context.Context) { _ = context.WithValue(ctx, \"k\", 1) }\n\nvar _ = key\n",
		"revive defer: ":                   "func deferred(f func()) {\n\tfor range 2 {\n\t\tdefer f()\n\t}\n}\n\nvar _ = deferred\n",
		"revive dot-imports: ":             "import . \"os\"\n\nvar _ = Args\n",
		"revive early-return: ":            "import \"os\"\n\nfunc early(a bool) {\n\tif a {\n\t\t_ = os.Args\n\t\t_ = os.Args\n\t} else {\n\t\treturn\n\t}\n\t_ = os.Args\n}\n\nvar _ = early\n",
		"revive empty-block: ":             "func empty(n int) {\n\tif n > 1 {\n\t}\n}\n\nvar _ = empty\n",
		"revive empty-lines: ":             "func lines(n int) int {\n\tn++\n\treturn n\n\n}\n\nvar _ = lines\n",
		"revive error-naming: ":            "import \"errors\"\n\nvar broken = errors.New(\"broken\")\n\nvar _ = broken\n",
		"revive error-return: ":            "func first() (error, int) { return nil, 1 }\n\nvar _ = first\n",
		"revive error-strings: ":           "import \"errors\"\n\nvar _ = errors.New(\"Capital.\")\n",
		"revive errorf: ":                  "import (\n\t\"errors\"\n\t\"fmt\"\n\t\"os\"\n)\n\nvar _ = errors.New(fmt.Sprintf(\"x %s\", os.Args))\n",
		"revive exported: ":                "func Exported() {}\n",
		"revive identical-branches: ":      "func same(a bool, f func()) {\n\tif a {\n\t\tf()\n\t} else {\n\t\tf()\n\t}\n}\n\nvar _ = same\n",
		"revive increment-decrement: ":     "func count(n int) int {\n\tn += 1\n\treturn n\n}\n\nvar _ = count\n",
		"revive indent-error-flow: ":       "func flow(f func() error) error {\n\tif err := f(); err != nil {\n\t\treturn err\n\t} else {\n\t\treturn f()\n\t}\n}\n\nvar _ = flow\n",
		"revive package-comments: ":        "",
		"revive range: ":                   "func over(m map[int]int) (n int) {\n\tfor k, _ := range m {\n\t\tn += k\n\t}\n\treturn n\n}\n\nvar _ = over\n",
		"revive receiver-naming: ":         "type receiver struct{}\n\nfunc (this receiver) method() {}\n\nvar _ = receiver.method\n",
		"revive redefines-builtin-id: ":    "func shadow(len int) int { return len }\n\nvar _ = shadow\n",
		"revive superfluous-else: ":        "func loop(n int) {\n\tfor n > 1 {\n\t\tif n > 2 {\n\t\t\tbreak\n\t\t} else {\n\t\t\tn--\n\t\t}\n\t}\n}\n\nvar _ = loop\n",
		"revive time-naming: ":             "import \"time\"\n\nfunc wait(delaySec time.Duration) { var limitSec = delaySec; _ = limitSec }\n\nvar timeoutSec = 2 * time.Second\n\nvar _, _ = wait, timeoutSec\n",
		"revive unconditional-recursion: ": "func again(n int) int {\n\tn++\n\treturn again(n)\n}\n\nvar _ = again\n",
		"revive unexported-return: ":       "type hidden struct{}\n\n// Hidden returns one.\nfunc Hidden() hidden { return hidden{} }\n",
		"revive unnecessary-stmt: ":        "func ending(f func()) {\n\tf()\n\treturn\n}\n\nvar _ = ending\n",
		"revive unreachable-code: ":        "func after() int {\n\treturn 1\n\treturn 2\n}\n\nvar _ = after\n",
		"revive unused-parameter: ":        "func unused(n int) {}\n\nvar _ = unused\n",
		"revive use-any: ":                 "var _ = func(interface{}) {}\n",
		"revive var-declaration: ":         "var _ = func() { var n int = 1; _ = n }\n\nfunc declared() int {\n\tvar n int = declared()\n\treturn n\n}\n",
		"revive var-naming: ":              "func under_score() {}\n\nvar _ = under_score\n",
		"revive waitgroup-by-value: ":      "import \"sync\"\n\nfunc wait(wg sync.WaitGroup) { wg.Wait() }\n\nvar _ = wait\n",
	}
}

// configured returns the linters, formatters and rules that the configuration enables, in the form of violations;
// forbidigo and nolintlint have a violation for each pattern and requirement.
func configured(t *testing.T, config string) []string {
	t.Helper()
	names := enabled(config)
	for _, m := range regexp.MustCompile(`(?m)^\s+- name: ([\w-]+)$`).FindAllStringSubmatch(config, -1) {
		names = append(names, "revive "+m[1]+": ")
	}
	for _, m := range regexp.MustCompile(`(?m)^\s+- pattern: \^([\w\\.]+)`).FindAllStringSubmatch(config, -1) {
		names = append(names, "forbidigo use of `"+strings.ReplaceAll(m[1], `\`, "")+"` ")
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == "revive" || n == "forbidigo" || n == "nolintlint" })
	names = append(names, "nolintlint directive `//nolint:errcheck` should provide explanation",
		"nolintlint directive `//nolint // why` should mention", "nolintlint directive `//nolint:errcheck // why` is unused")
	slices.Sort(names)
	return names
}

func TestGolangci_ReportsThePlantedViolationOfEachLinter(t *testing.T) {
	config, err := os.ReadFile("../../" + linterConfig)
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("../../scripts/lint.sh")
	if err != nil {
		t.Fatal(err)
	}
	tool := regexp.MustCompile(`(?m)^golangci=(\S+)$`).FindSubmatch(script)
	if tool == nil {
		t.Fatal("scripts/lint.sh names no version of golangci-lint")
	}
	plants := violations()
	names := slices.Sorted(maps.Keys(plants))
	if want := configured(t, string(config)); !slices.Equal(names, want) {
		t.Errorf("planted are %q\nconfigured are %q", names, want)
	}
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module github.com/cleatproject/cleat/planted\n\ngo 1.26\n")
	write(linterConfig, string(config))
	write("sub/sub.go", "// Package sub is imported.\npackage sub\n\n// Name is its name.\nconst Name = \"\"\n")
	folder := func(name string) string {
		return "of_" + regexp.MustCompile(`\W+`).ReplaceAllString(strings.ToLower(name), "_")
	}
	for _, name := range names {
		comment := "// Package planted has a violation.\n"
		if strings.HasPrefix(name, "revive package-comments") {
			comment = ""
		}
		write(folder(name)+"/planted.go", comment+"package planted\n\n"+plants[name])
	}
	found := golangci(t, root, string(tool[1]))
	for _, name := range names {
		linter, text, _ := strings.Cut(name, " ")
		if !slices.ContainsFunc(found, func(f finding) bool {
			return f.FromLinter == linter && strings.HasPrefix(f.Text, text) && filepath.Dir(f.Pos.Filename) == folder(name)
		}) {
			t.Errorf("%s does not report its violation", name)
		}
	}
}

// finding is one in golangci-lint's report.
type finding struct {
	FromLinter, Text string
	Pos              struct{ Filename string }
}

// golangci runs the tool in a module with findings.
func golangci(t *testing.T, root, tool string) []finding {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "run", tool, "run", "--output.json.path", "stdout", "--show-stats=false", "./...")
	cmd.Dir = root
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err == nil {
		t.Error("golangci-lint succeeds")
	}
	var report struct{ Issues []finding }
	if err := json.Unmarshal(stdout.Bytes(), &report); err != nil {
		t.Fatalf("read the report of golangci-lint: %v\n%s", err, stderr.String())
	}
	return report.Issues
}
