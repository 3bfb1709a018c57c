package image

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/proto/reason"
)

// Choice selects manifests of an image. The zero value selects all of them.
type Choice struct {
	// Platforms selects, for each, the manifests that are exactly for it, or if there are none
	// the best match; none selects all.
	Platforms []ocispec.Platform
	// Limit bounds the number of manifests, in the order of Platforms; 0 for none.
	Limit int
	// Documents also selects the manifests and configurations of all others, without their layers.
	Documents bool
}

// matcher returns a matcher of any of the platforms.
func (c *Choice) matcher() platforms.MatchComparer {
	if len(c.Platforms) == 0 {
		return platforms.All
	}
	var m anyOf
	for _, p := range c.Platforms {
		m = append(m, platforms.Only(p))
	}
	return m
}

// anyOf matches if one of its matchers does, and prefers none.
type anyOf []platforms.MatchComparer

var _ platforms.MatchComparer = anyOf(nil)

// Match implements platforms.Matcher.
func (m anyOf) Match(p ocispec.Platform) bool {
	return slices.ContainsFunc(m, func(o platforms.MatchComparer) bool { return o.Match(p) })
}

// Less implements platforms.MatchComparer.
func (anyOf) Less(ocispec.Platform, ocispec.Platform) bool { return false }

// pick returns the selected manifests of found; each has a platform.
func (c *Choice) pick(found []ocispec.Descriptor) []ocispec.Descriptor {
	picked := found
	if len(c.Platforms) > 0 {
		picked = nil
		for _, p := range c.Platforms {
			picked = append(picked, pickFor(found, p)...)
		}
	}
	seen := make(map[digest.Digest]bool)
	picked = slices.DeleteFunc(slices.Clone(picked), func(d ocispec.Descriptor) bool {
		again := seen[d.Digest]
		seen[d.Digest] = true
		return again
	})
	if c.Limit > 0 && len(picked) > c.Limit {
		picked = picked[:c.Limit]
	}
	return picked
}

func pickFor(found []ocispec.Descriptor, p ocispec.Platform) []ocispec.Descriptor {
	exactly, only := platforms.NewMatcher(p), platforms.Only(p)
	var exact, best []ocispec.Descriptor
	for _, d := range found {
		switch {
		case exactly.Match(*d.Platform):
			exact = append(exact, d)
		case suits(only, *d.Platform) && (best == nil || only.Less(*d.Platform, *best[0].Platform)):
			best = []ocispec.Descriptor{d}
		}
	}
	if exact != nil {
		return exact
	}
	return best
}

// Chosen returns the selected manifests of an image that are present. all reports whether they are all that
// the image names. Not found if there is none.
func Chosen(ctx context.Context, p Provider, target ocispec.Descriptor, c Choice) (chosen []ocispec.Descriptor, all bool, err error) {
	found, err := withPlatform(ctx, p, target, c.matcher())
	if err != nil {
		return nil, false, err
	}
	if chosen = c.pick(found); len(chosen) == 0 {
		return nil, false, fmt.Errorf("image %s has no manifest for these platforms: %w", target.Digest, reason.ImageIncomplete)
	}
	named := make(map[digest.Digest]bool)
	if err := namedBy(ctx, p, target, 0, named); err != nil {
		return nil, false, err
	}
	for _, d := range chosen {
		delete(named, d.Digest)
	}
	return chosen, len(named) == 0, nil
}

// namedBy adds the manifests at and below desc, present or not.
func namedBy(ctx context.Context, p Provider, desc ocispec.Descriptor, depth int, named map[digest.Digest]bool) error {
	if depth > MaxNesting {
		return invalidf("indexes are nested more than %d deep", MaxNesting)
	}
	if !IsIndex(desc.MediaType) {
		named[desc.Digest] = true
		return nil
	}
	children, err := Children(ctx, p, desc)
	if errdefs.IsNotFound(err) {
		named[desc.Digest] = true
		return nil
	}
	if err != nil {
		return err
	}
	for _, c := range children {
		if err := namedBy(ctx, p, c, depth+1, named); err != nil {
			return err
		}
	}
	return nil
}

// some fetches the documents of the selected manifests.
func (f *Fetching) some(ctx context.Context, target ocispec.Descriptor) error {
	c := f.opts.Some
	if IsManifest(target.MediaType) {
		err := f.manifest(ctx, target)
		return err
	}
	if len(c.Platforms) == 0 && c.Limit == 0 {
		return f.everything(ctx, target, 0)
	}
	f.opts.Platform = c.matcher()
	var found, others []ocispec.Descriptor
	if err := f.candidates(ctx, target, 0, &found, &others); err != nil {
		return err
	}
	picked := c.pick(found)
	if len(picked) == 0 {
		return noPlatform(target, others)
	}
	for _, d := range picked {
		if err := f.manifest(ctx, d); err != nil {
			return err
		}
	}
	if !c.Documents {
		return nil
	}
	for _, d := range append(found, others...) {
		if slices.ContainsFunc(picked, func(p ocispec.Descriptor) bool { return p.Digest == d.Digest }) {
			continue
		}
		if err := f.documentsOf(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// documentsOf fetches a manifest and its configuration.
func (f *Fetching) documentsOf(ctx context.Context, desc ocispec.Descriptor) error {
	if err := f.document(ctx, desc); err != nil {
		return err
	}
	m, err := ReadManifest(ctx, f.content, desc)
	if err != nil {
		return err
	}
	f.found(m.Config, desc)
	return f.document(ctx, m.Config)
}

// Filter returns the selected manifests of an image, as Chosen does, and the content without the other manifests
// that the image names.
func Filter(ctx context.Context, p Provider, target ocispec.Descriptor, c Choice) (Provider, []ocispec.Descriptor, error) {
	chosen, _, err := Chosen(ctx, p, target, c)
	if err != nil {
		return nil, nil, err
	}
	f := filtered{Provider: p, hidden: make(map[digest.Digest]bool)}
	if err := namedBy(ctx, p, target, 0, f.hidden); err != nil {
		return nil, nil, err
	}
	for _, d := range chosen {
		delete(f.hidden, d.Digest)
	}
	return f, chosen, nil
}

// filtered is a Provider without some blobs.
type filtered struct {
	Provider
	hidden map[digest.Digest]bool
}

var _ Provider = filtered{}

// ReaderAt implements Provider.
func (h filtered) ReaderAt(ctx context.Context, d digest.Digest) (Blob, error) {
	if h.hidden[d] {
		return nil, fmt.Errorf("blob %s is not selected: %w", d, errdefs.ErrNotFound)
	}
	return h.Provider.ReaderAt(ctx, d)
}
