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
		{"daemon/service", "daemon/service/containers", true},
		{"daemon/service/containers", "daemon/service/images", true},
		{"daemon/service/images", "daemon/service/gc", false},
		{"daemon/service/gc", "daemon/service/images", false},
		{"daemon/service/transfer", "daemon/service/containers", false},
		{"daemon/api", "shim", false},
		{"metadata/boltfile", "content", true},
		{"internal/filters", "content", false},
		{"metadata", "runtime", false},
		{"cmd/cleat", "client/spec", true},
		{"cmd/cleat", "daemon", false},
		{"cmd/cleatd", "shim", false},
		{"bench", "shim", true},
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

func parse(t *testing.T, name, src string) *checker {
	t.Helper()
	c := &checker{fset: token.NewFileSet(), folder: "content", name: name, test: strings.HasSuffix(name, "_test.go")}
	var err error
	if c.file, err = parser.ParseFile(c.fset, name, src, parser.ParseComments); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFileRules(t *testing.T) {
	for src, want := range map[string]string{
		`func f() { <-time.After(1) }`:                    "wait for the state",
		`func f() { select { case <-time.After(1): } }`:   "",
		`func f() { fmt.Errorf("x: install it: %w", e) }`: "advice in an error",
		`func f() { errors.New("x is busy; try again") }`: "advice in an error",
		`func f() { fmt.Errorf("start task %s: %w", e) }`: "",
		"// " + "TODO: later\nfunc f() {}":                "without an issue's number",
		"// " + "TODO(#7): later\nfunc f() {}":            "",
	} {
		c := parse(t, "x.go", "package x\n"+src)
		for _, check := range []func(*checker){(*checker).wait, (*checker).advice, (*checker).todo} {
			check(c)
		}
		got := strings.Join(c.findings, "\n")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", src, got, want)
		}
	}
}

func TestLengths(t *testing.T) {
	long := func(lines int) string { return strings.Repeat("\n", lines) }
	for name, tc := range map[string]struct{ file, src, want string }{
		"short":         {"x.go", "func f() {" + long(59) + "}", ""},
		"long function": {"x.go", "func f() {" + long(60) + "}", "f has 61 lines"},
		"short file":    {"x.go", long(400), ""},
		"long file":     {"x.go", long(401), "file of 401 lines"},
		"test":          {"x_test.go", "func f() {" + long(60) + "}" + long(401), ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := parse(t, tc.file, "package x;"+tc.src)
			c.lengths()
			if got := strings.Join(c.findings, "\n"); tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestFileNames(t *testing.T) {
	c := parse(t, "x.go", "package x\ntype logProcess struct{}\nfunc readIDs() {}\nfunc (logProcess) hostUID() {}\ntype HTTPClient struct{}\n")
	for name, want := range map[string]string{
		"log_process.go": "", "logprocess.go": "want log_process.go", "logprocess_test.go": "want log_process_test.go",
		"process.go": "", "log-process.go": "want words", "logProcess.go": "want words", "hostuid.go": "want host_uid.go",
		"ids.go": "", "httpclient.go": "want http_client.go",
	} {
		c.name = name
		found, err := fileNames(&project{files: []*checker{c}})
		got := strings.Join(found, "\n")
		if err != nil || want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestGivenModules_AreImportedByProduct(t *testing.T) {
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
		"in a test":         {ImportPath: module + "client"},
		"outside a binary":  {ImportPath: module + "bench", Imports: []string{missing}},
		"by another module": {ImportPath: "example.org/other", Imports: []string{missing}},
		"a namesake":        {ImportPath: module + "client", Imports: []string{missing + "2"}},
	} {
		got := givenInUse(append(slices.Clone(product), where))
		if len(got) != 1 || !strings.HasPrefix(got[0], missing+": ") {
			t.Errorf("imported %s: findings %q", name, got)
		}
	}
}
