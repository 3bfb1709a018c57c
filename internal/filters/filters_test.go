package filters

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// object returns the fields of a map by their paths, joined by dots.
type object map[string]string

func (o object) Field(path []string) (string, bool) {
	v, ok := o[strings.Join(path, ".")]
	return v, ok
}

func TestMatch(t *testing.T) {
	o := object{"name": "docker.io/library/busybox:latest", "labels.a.b": "x y", "id": "web-1", "labels.path": "/var/lib", "empty": ""}
	for text, want := range map[string]bool{
		``:                                       true,
		`name==docker.io/library/busybox:latest`: true,
		`name==docker.io`:                        false,
		`name!=docker.io`:                        true,
		`missing!=x`:                             true,
		`missing==x`:                             false,
		`missing`:                                false,
		`empty`:                                  true,
		`labels."a.b"=="x y"`:                    true,
		`labels."a.b"`:                           true,
		`labels.a.b`:                             true,
		`id~=^web-`:                              true,
		`id~=/^web-[0-9]$/`:                      true,
		`id~=|^db-|`:                             false,
		`id~=^web-,name~=busybox`:                true,
		`id~=^web-, name~=alpine`:                false,
		`labels.path==/var/lib`:                  true,
		` id == web-1 `:                          true,
		`"id"==web-1`:                            true,
	} {
		f, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := f.Match(o); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

func TestParseAll_Alternatives(t *testing.T) {
	o := object{"id": "a"}
	for _, tc := range []struct {
		texts []string
		want  bool
	}{
		{nil, true},
		{[]string{"id==b", "id==a"}, true},
		{[]string{"id==b", "id==c"}, false},
	} {
		f, err := ParseAll(tc.texts...)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Match(o); got != tc.want {
			t.Errorf("%v: %v", tc.texts, got)
		}
	}
}

func TestParse_RefusesBadText(t *testing.T) {
	for _, text := range []string{
		`==x`, `id=x`, `id==`, `id~=(`, `id=="x`, `id==x,`, `,`, `id==x y`, `labels.`, `labels.."a"`, `id=="x"y`, strings.Repeat("a", maxText+1),
	} {
		if _, err := Parse(text); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%.80s: %v", text, err)
		}
	}
}

func TestParse_ErrorsShowPosition(t *testing.T) {
	for text, want := range map[string]string{
		`id=x`:         `expected one of the operators == != ~= at character 3, before "=x"`,
		`id==x,`:       `expected the name of a field at its end, character 7`,
		`labels."ä"==`: `expected a value at its end, character 13`,
		`id==x y`:      `expected a comma at character 7, before "y"`,
		`id~=a(`:       `not a regular expression at character 5, before "a("`,
		`a."b`:         `quotes do not close at character 3`,
	} {
		_, err := Parse(text)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "filter ") {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestExact(t *testing.T) {
	for _, tc := range []struct {
		texts []string
		want  string
		ok    bool
	}{
		{[]string{"id==a"}, "a", true},
		{[]string{"labels.x,id==a", `"id"==b`}, "a,b", true},
		{[]string{"id==a", "labels.x"}, "", false},
		{[]string{"id~=a"}, "", false},
		{[]string{"id!=a"}, "", false},
		{[]string{"id.x==a"}, "", false},
		{nil, "", false},
		{[]string{""}, "", false},
	} {
		f, err := ParseAll(tc.texts...)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := Exact(f, "id")
		if strings.Join(got, ",") != tc.want || ok != tc.ok {
			t.Errorf("%q: %v %v", tc.texts, got, ok)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`labels."a.b"==x,id~=re`, `name!=v`, `a~=/x\/y/`, `a==|b|,c`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		filter, err := Parse(text)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("class of %v", err)
			}
			return
		}
		filter.Match(object{"a": "b"})
	})
}
