package transfer

import (
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/image/layout"
)

func TestNames_OfImportedImages(t *testing.T) {
	of := func(text string) ocispec.Descriptor { return ocispec.Descriptor{Digest: digest.FromString(text)} }
	full := layout.Imported{Name: "example.com/box:1", Stated: "example.com/box:1", Target: of("full")}
	short := layout.Imported{Name: "docker.io/library/box:1", Stated: "box:1", Target: of("short")}
	tag := layout.Imported{Tag: "2", Target: of("tag")}
	none := layout.Imported{Target: of("none")}
	whole := layout.Imported{Target: of("whole"), Whole: true}
	at := func(prefix string, img layout.Imported) string { return prefix + "@" + img.Target.Digest.String() }
	for what, c := range map[string]struct {
		to   Store
		want []string
	}{
		"cleat's own":              {Store{Loose: true}, []string{full.Name, short.Name, at("import-sha256", tag), at("import-sha256", none)}},
		"nothing said":             {Store{}, nil},
		"a name":                   {Store{Name: "all:1"}, []string{"all:1"}},
		"names":                    {Store{Name: "all:1", References: []Reference{{Name: "too:1"}, {Name: "all:1"}}}, []string{"all:1", "too:1"}},
		"a prefix":                 {Store{References: []Reference{{Name: "example.com/box", Prefix: true}}}, []string{full.Name, "example.com/box:2"}},
		"a prefix of another":      {Store{References: []Reference{{Name: "x", Prefix: true}}}, []string{"x:2"}},
		"one that may be replaced": {Store{References: []Reference{{Name: "x", Prefix: true, Overwrite: true}}}, []string{full.Name, "box:1", "x:2"}},
		"digests too": {Store{References: []Reference{{Name: "x", Prefix: true, Digest: true}}}, []string{
			at("x", full), at("x", short), "x:2", at("x", tag), at("x", none), at("x", whole),
		}},
		"digests where no name is": {Store{References: []Reference{{Name: "x", Prefix: true, Digest: true, SkipNamed: true}}}, []string{
			at("x", full), at("x", short), "x:2", at("x", none), at("x", whole),
		}},
	} {
		list := []layout.Imported{full, short, tag, none}
		if !c.to.Loose {
			list = append(list, whole)
		}
		var names []string
		for _, img := range c.to.imported(list) {
			names = append(names, img.Name)
		}
		if !slices.Equal(names, c.want) {
			t.Errorf("%s: %q, want %q", what, names, c.want)
		}
	}
	if got := (&Store{Name: "a", References: []Reference{{Name: "b", Prefix: true, Digest: true, SkipNamed: true}}}).named("sha256:1"); !slices.Equal(got, []string{"a"}) {
		t.Errorf("a digest and a name: %q", got)
	}
}
