package main

import (
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

func TestFloors(t *testing.T) {
	for _, tc := range []struct {
		pkg, imports string
		ok           bool
	}{
		{"shim", "reaper", true},
		{"shim", "events", false},
		{"shim", "daemon/service", false},
		{"client", "proto/rpc", true},
		{"client", "mount", false},
		{"client/spec", "client", true},
		{"daemon/api", "daemon/service", true},
		{"daemon/service", "daemon/api", false},
		{"daemon/api", "shim", false},
		{"metadata/boltfile", "content", true},
		{"internal/filters", "content", false},
		{"metadata", "runtime", false},
		{"cmd/cleat", "client/spec", true},
		{"cmd/cleat", "daemon", false},
		{"cmd/cleatd", "shim", false},
		{"integration", "shim", true},
		{"nowhere", "proto", false},
	} {
		got := floors([]listed{{ImportPath: module + tc.pkg, Imports: []string{"fmt", module + tc.imports}}})
		if (len(got) == 0) != tc.ok {
			t.Errorf("%s imports %s: findings %q, want allowed %v", tc.pkg, tc.imports, got, tc.ok)
		}
	}
}

func TestGenerators(t *testing.T) {
	for _, tc := range []struct {
		pkg, dep string
		ok       bool
	}{
		{"cmd/cleat", "github.com/spf13/cobra/doc", false},
		{"cmd/cleat", "github.com/spf13/cobra", true},
		{"internal/lint", "github.com/spf13/cobra/doc", true},
	} {
		got := generators([]listed{{ImportPath: module + tc.pkg, Deps: []string{"fmt", tc.dep}}})
		if (len(got) == 0) != tc.ok {
			t.Errorf("%s links %s: findings %q, want allowed %v", tc.pkg, tc.dep, got, tc.ok)
		}
	}
}

func TestRules(t *testing.T) {
	for src, want := range map[string]string{
		`func f() { os.Rename("a", "b") }`:                "internal/durable",
		`func f() { time.Sleep(1) }`:                      "wait for what you wait for",
		`func f() { panic("x") }`:                         "return an error",
		`func f() { fmt.Errorf("x: install it: %w", e) }`: "advice in an error",
		`func f() { errors.New("x is busy; try again") }`: "advice in an error",
		`func f() { fmt.Errorf("start task %s: %w", e) }`: "",
		`func init() {}`:                                  "no init()",
		`var table = map[string]int{}`:                    "package variable table",
		`var errX = errors.New("x")`:                      "",
		`var _ I = (*T)(nil)`:                             "",
		"// " + "TODO: later\nfunc f() {}":                "without an issue's number",
		"// " + "TODO(#7): later\nfunc f() {}":            "",
		`var v string //nolint:gochecknoglobals // why`:   "",
		`func (t T) init() { t.panic("x") }`:              "",
	} {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, "x.go", "package x\n"+src, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		c := checker{fset: fset, folder: "content", name: "x.go"}
		c.file(file)
		got := strings.Join(c.findings, "\n")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", src, got, want)
		}
	}
}

func TestSleepIsForbiddenInTestsToo(t *testing.T) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "x_test.go", "package x\nfunc f() { time.Sleep(1); panic(1) }", 0)
	if err != nil {
		t.Fatal(err)
	}
	c := checker{fset: fset, folder: "content", name: "x_test.go", test: true}
	c.file(file)
	if len(c.findings) != 1 || !strings.Contains(c.findings[0], "Sleep") {
		t.Fatal(c.findings)
	}
}

func TestGivenModulesAreImportedByTheProduct(t *testing.T) {
	product := []listed{
		{ImportPath: module + "cmd/cleat", Deps: []string{module + "client", "github.com/containerd/go-runc"}, Imports: []string{module + "client"}},
		{ImportPath: module + "client", Imports: []string{"fmt"}},
	}
	for _, m := range given() {
		product[1].Imports = append(product[1].Imports, m+"/sub")
	}
	if got := givenInUse(product); len(got) != 0 {
		t.Errorf("all are imported: findings %q", got)
	}
	const missing = "github.com/containerd/go-runc"
	product[1].Imports = slices.DeleteFunc(product[1].Imports, func(i string) bool { return strings.HasPrefix(i, missing) })
	for name, where := range map[string]listed{
		"nowhere":           {},
		"in a test":         {ImportPath: module + "client", GoFiles: nil, TestGoFiles: []string{"x_test.go"}},
		"outside a binary":  {ImportPath: module + "integration", Imports: []string{missing}},
		"by another module": {ImportPath: "example.org/other", Imports: []string{missing}},
		"a namesake":        {ImportPath: module + "client", Imports: []string{missing + "2"}},
	} {
		got := givenInUse(append(slices.Clone(product), where))
		if len(got) != 1 || !strings.HasPrefix(got[0], missing+": ") {
			t.Errorf("imported %s: findings %q", name, got)
		}
	}
}
