package transfer

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/image/layout"
	"github.com/cleatproject/cleat/image/registry"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/reason"
)

// Reference is a further name for what is stored, or a way to find images. One that is not a prefix is a name.
type Reference struct {
	Name string
	// Prefix says that the name is to get a tag or a digest; the others are for prefixes.
	Prefix bool
	// Overwrite lets an image keep a full name that does not begin with the prefix.
	Overwrite bool
	// Digest also gives a name by digest.
	Digest bool
	// SkipNamed gives it only to images that get no other.
	SkipNamed bool
}

// complete makes a loose name a full one; without is for where there is none.
func (d *Store) complete(without string) error {
	if !d.Loose {
		return nil
	}
	if d.Name == "" {
		d.Name = without
		return nil
	}
	ref, err := registry.Parse(d.Name)
	if err != nil {
		return err
	}
	if ref.Digest != "" {
		return fmt.Errorf("image store: the new name %s is a digest, want a tag: %w", ref, errdefs.ErrInvalidArgument)
	}
	d.Name = ref.String()
	return nil
}

// named returns the names for an image that is all that is stored.
func (d *Store) named(target digest.Digest) []string {
	var names []string
	if d.Name != "" {
		names = append(names, d.Name)
	}
	for _, r := range d.References {
		switch {
		case !r.Prefix:
			names = append(names, r.Name)
		case r.Digest && (!r.SkipNamed || len(names) == 0):
			names = append(names, r.Name+"@"+target.String())
		}
	}
	return unique(names)
}

func unique(names []string) []string {
	var out []string
	for _, n := range names {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// imported returns what an archive held under the names it gets here. A store that completes names takes the
// archive's own; of any other, the whole gets the names and the images those that the prefixes make, which may
// be none.
func (d *Store) imported(list []layout.Imported) []layout.Imported {
	var out []layout.Imported
	for _, img := range list {
		var names []string
		switch {
		case d.Loose:
			names = []string{cmp.Or(img.Name, "import-"+img.Target.Digest.Algorithm().String()+"@"+img.Target.Digest.String())}
		case img.Whole:
			names = d.ofWhole(img.Target.Digest)
		default:
			names = d.prefixed(img)
		}
		for _, n := range unique(names) {
			out = append(out, layout.Imported{Name: n, Target: img.Target})
		}
	}
	return out
}

// ofWhole returns the names for the index of all that an archive holds.
func (d *Store) ofWhole(target digest.Digest) []string {
	var names []string
	if d.Name != "" {
		names = append(names, d.Name)
	}
	for _, r := range d.References {
		switch {
		case !r.Prefix:
			names = append(names, r.Name)
		case r.Digest:
			names = append(names, r.Name+"@"+target.String())
		}
	}
	return names
}

// prefixed returns the names that the prefixes make for an image of an archive.
func (d *Store) prefixed(img layout.Imported) []string {
	var names []string
	for _, r := range d.References {
		if !r.Prefix {
			continue
		}
		name := r.nameFor(img)
		if name != "" {
			names = append(names, name)
		}
		if r.Digest && (!r.SkipNamed || name == "") {
			names = append(names, r.Name+"@"+img.Target.Digest.String())
		}
	}
	return names
}

// nameFor returns the name that a prefix makes for an image, or "": of a tag, or the image's own as it is
// written if that is one of the prefix or any is allowed.
func (r Reference) nameFor(img layout.Imported) string {
	switch {
	case img.Tag != "":
		return r.Name + ":" + img.Tag
	case r.Overwrite || r.isPrefixOf(img.Stated):
		return img.Stated
	}
	return ""
}

// isPrefixOf reports whether a name is the prefix with a tag, a digest, a further path or nothing after it.
func (r Reference) isPrefixOf(name string) bool {
	rest, ok := strings.CutPrefix(name, r.Name)
	return ok && (rest == "" || strings.IndexByte(":@/", rest[0]) >= 0)
}

// lookup returns the images that a source names.
func (s *Service) lookup(ctx context.Context, namespace string, src *Store) ([]metadata.Image, error) {
	if err := src.check(); err != nil {
		return nil, err
	}
	var out []metadata.Image
	if src.Name != "" {
		img, err := s.images.Resolve(ctx, namespace, src.Name)
		if err != nil {
			return nil, err
		}
		out = append(out, img)
	}
	for _, r := range src.References {
		if !r.Prefix {
			img, err := s.images.Resolve(ctx, namespace, r.Name)
			if err != nil {
				return nil, err
			}
			out = append(out, img)
			continue
		}
		found, err := s.lookupPrefix(ctx, namespace, r)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// lookupPrefix returns the images of a repository, by tag and, where that is asked for, by digest.
func (s *Service) lookupPrefix(ctx context.Context, namespace string, r Reference) ([]metadata.Image, error) {
	all, err := s.images.Records(ctx, namespace)
	if err != nil {
		return nil, err
	}
	var out []metadata.Image
	tagged := make(map[digest.Digest]bool)
	for _, img := range all {
		if strings.HasPrefix(img.Name, r.Name+":") {
			out = append(out, img)
			tagged[img.Target.Digest] = true
		}
	}
	for _, img := range all {
		if r.Digest && strings.HasPrefix(img.Name, r.Name+"@") && (!r.SkipNamed || !tagged[img.Target.Digest]) {
			out = append(out, img)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("image %s with any tag: %w", r.Name, reason.ImageNotFound)
	}
	return out, nil
}
