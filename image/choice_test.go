package image_test

import (
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/image"
)

func TestChosen(t *testing.T) {
	src := newSource()
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	name := make(map[string]string)
	for _, text := range []string{"linux/amd64", "linux/386", "linux/arm64", "linux/arm/v6", "linux/arm/v7", "windows/amd64"} {
		p := platforms.MustParse(text)
		d := src.image(p.OS, p.Architecture, "layer of "+text)
		d.Platform = &p
		index.Manifests = append(index.Manifests, d)
		name[d.Digest.String()] = text
	}
	target := src.put(ocispec.MediaTypeImageIndex, index)
	_, c := openStore(t)
	if err := fetchAll(t, c, src, target, image.FetchOptions{Some: &image.Choice{}}); err != nil {
		t.Fatal(err)
	}
	for what, x := range map[string]struct {
		choice image.Choice
		want   []string
		all    bool
	}{
		"all": {image.Choice{}, []string{"linux/amd64", "linux/386", "linux/arm64", "linux/arm/v6", "linux/arm/v7", "windows/amd64"}, true},
		// linux/386 runs on linux/amd64 too, and is not selected if an exact match exists.
		"one":                  {image.Choice{Platforms: parse("linux/amd64")}, []string{"linux/amd64"}, false},
		"in the order given":   {image.Choice{Platforms: parse("linux/arm64", "linux/amd64")}, []string{"linux/arm64", "linux/amd64"}, false},
		"some of them":         {image.Choice{Platforms: parse("linux/arm64", "linux/amd64"), Limit: 1}, []string{"linux/arm64"}, false},
		"the best that is":     {image.Choice{Platforms: parse("linux/arm/v8")}, []string{"linux/arm/v7"}, false},
		"twice the same":       {image.Choice{Platforms: parse("linux/arm/v7", "linux/arm/v7")}, []string{"linux/arm/v7"}, false},
		"the first of all":     {image.Choice{Limit: 2}, []string{"linux/amd64", "linux/386"}, false},
		"one that is not, too": {image.Choice{Platforms: parse("linux/riscv64", "windows/amd64")}, []string{"windows/amd64"}, false},
	} {
		got, all, err := image.Chosen(t.Context(), c, target, x.choice)
		var names []string
		for _, d := range got {
			names = append(names, name[d.Digest.String()])
		}
		if err != nil || all != x.all || !slices.Equal(names, x.want) {
			t.Errorf("%s: %q, %v, %v", what, names, all, err)
		}
	}
	if _, _, err := image.Chosen(t.Context(), c, target, image.Choice{Platforms: parse("linux/riscv64")}); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
}

func parse(texts ...string) (list []ocispec.Platform) {
	for _, t := range texts {
		list = append(list, platforms.MustParse(t))
	}
	return list
}
