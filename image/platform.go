package image

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// candidate is a manifest and the platform it is for.
type candidate struct {
	desc     ocispec.Descriptor
	manifest ocispec.Manifest
	platform ocispec.Platform
}

// Manifest returns the manifest of the image for the platform, with its descriptor: the
// best match, if several match. A nil matcher is that of this machine. Not found if there
// is none, or its content is missing.
func Manifest(ctx context.Context, p Provider, target ocispec.Descriptor, match platforms.MatchComparer) (ocispec.Manifest, ocispec.Descriptor, error) {
	if match == nil {
		match = platforms.Default()
	}
	var found []candidate
	if err := gather(ctx, p, target, match, 0, &found); err != nil {
		return ocispec.Manifest{}, ocispec.Descriptor{}, err
	}
	if len(found) == 0 {
		return ocispec.Manifest{}, ocispec.Descriptor{}, platformNotPresent(ctx, p, target)
	}
	slices.SortStableFunc(found, func(a, b candidate) int {
		switch {
		case match.Less(a.platform, b.platform):
			return -1
		case match.Less(b.platform, a.platform):
			return 1
		default:
			return 0
		}
	})
	return found[0].manifest, found[0].desc, nil
}

// platformNotPresent returns an error with the platforms that are present.
func platformNotPresent(ctx context.Context, p Provider, target ocispec.Descriptor) error {
	var present []candidate
	if err := gather(ctx, p, target, platforms.All, 0, &present); err != nil {
		return err
	}
	others := make([]ocispec.Descriptor, len(present))
	for i := range present {
		others[i].Platform = &present[i].platform
	}
	return noPlatform(target, others)
}

// gather adds the manifests at and below desc that match. Manifests that an index lists
// but that are not present are skipped.
func gather(ctx context.Context, p Provider, desc ocispec.Descriptor, match platforms.Matcher, depth int, found *[]candidate) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	switch {
	case IsManifest(desc.MediaType):
		c, ok, err := matching(ctx, p, desc, match)
		if ok && err == nil {
			*found = append(*found, c)
		}
		return err
	case !IsIndex(desc.MediaType):
		return fmt.Errorf("content %s of type %q is not an image: %w", desc.Digest, desc.MediaType, errdefs.ErrNotImplemented)
	case depth >= MaxNesting:
		return invalidf("indexes are nested more than %d deep", MaxNesting)
	}
	index, err := ReadIndex(ctx, p, desc)
	if err != nil {
		return err
	}
	for _, d := range index.Manifests {
		if !IsManifest(d.MediaType) && !IsIndex(d.MediaType) || namesPlatform(d) && !match.Match(*d.Platform) {
			continue
		}
		if err := gather(ctx, p, d, match, depth+1, found); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// matching reads a manifest, and its configuration if its descriptor names no platform.
func matching(ctx context.Context, p Provider, desc ocispec.Descriptor, match platforms.Matcher) (candidate, bool, error) {
	manifest, err := ReadManifest(ctx, p, desc)
	if err != nil {
		return candidate{}, false, err
	}
	c := candidate{desc: desc, manifest: manifest}
	if namesPlatform(desc) {
		c.platform = *desc.Platform
		return c, match.Match(c.platform), nil
	}
	if !IsConfig(manifest.Config.MediaType) {
		return c, false, nil
	}
	config, err := ReadConfigOf(ctx, p, manifest.Config)
	if err != nil {
		return c, false, err
	}
	c.platform = platforms.Normalize(config.Platform)
	return c, suits(match, c.platform), nil
}

// namesPlatform reports whether a descriptor states its platform.
func namesPlatform(d ocispec.Descriptor) bool {
	return d.Platform != nil && d.Platform.Architecture != ""
}

// suits reports whether a platform matches. One without an architecture, of a configuration that states
// none, matches all: nothing else is known of the image.
func suits(match platforms.Matcher, p ocispec.Platform) bool {
	return p.Architecture == "" || match.Match(p)
}

// ReadConfig returns the configuration of the image for the platform; a nil matcher is
// that of this machine.
func ReadConfig(ctx context.Context, p Provider, target ocispec.Descriptor, match platforms.MatchComparer) (ocispec.Image, error) {
	manifest, _, err := Manifest(ctx, p, target, match)
	if err != nil {
		return ocispec.Image{}, err
	}
	return ReadConfigOf(ctx, p, manifest.Config)
}

// RootFS returns the digests of the image's unpacked layers, the lowest first.
func RootFS(ctx context.Context, p Provider, target ocispec.Descriptor, match platforms.MatchComparer) ([]digest.Digest, error) {
	config, err := ReadConfig(ctx, p, target, match)
	if err != nil {
		return nil, err
	}
	return config.RootFS.DiffIDs, nil
}

// Children returns the descriptors that desc refers to: the manifests of an index, the configuration and
// the layers of a manifest, none for others.
func Children(ctx context.Context, p Provider, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	switch {
	case IsIndex(desc.MediaType):
		index, err := ReadIndex(ctx, p, desc)
		return index.Manifests, err
	case IsManifest(desc.MediaType):
		manifest, err := ReadManifest(ctx, p, desc)
		if err != nil {
			return nil, err
		}
		return append([]ocispec.Descriptor{manifest.Config}, manifest.Layers...), nil
	default:
		return nil, nil
	}
}

// Walk calls fn with target and all present content that it refers to, each once.
func Walk(ctx context.Context, p Provider, target ocispec.Descriptor, fn func(ocispec.Descriptor) error) error {
	seen := make(map[digest.Digest]struct{})
	return walk(ctx, p, target, fn, seen, 0)
}

func walk(ctx context.Context, p Provider, desc ocispec.Descriptor, fn func(ocispec.Descriptor) error, seen map[digest.Digest]struct{}, depth int) error {
	if _, ok := seen[desc.Digest]; ok {
		return nil
	}
	if depth > MaxNesting {
		return invalidf("indexes are nested more than %d deep", MaxNesting)
	}
	b, err := p.ReaderAt(ctx, desc.Digest)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	_ = b.Close()
	seen[desc.Digest] = struct{}{}
	if err := fn(desc); err != nil {
		return err
	}
	children, err := Children(ctx, p, desc)
	if err != nil {
		return err
	}
	for _, c := range children {
		if err := walk(ctx, p, c, fn, seen, depth+1); err != nil {
			return err
		}
	}
	return nil
}
