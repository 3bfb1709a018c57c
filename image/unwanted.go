package image

import (
	"context"
	"slices"

	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Unwanted returns the images among targets, and the manifests below them, that are present and that
// the choice leaves out. A manifest without a platform, such as an artifact's, is never left out, and
// neither is one that another target needs. The error has the class not found if the choice leaves
// out every target.
func Unwanted(ctx context.Context, p Provider, c Choice, targets ...ocispec.Descriptor) (map[digest.Digest]bool, error) {
	if len(c.Platforms) == 0 && c.Limit == 0 {
		return nil, nil
	}
	match := c.matcher()
	unwanted, wanted := make(map[digest.Digest]bool), make(map[digest.Digest]bool)
	var present []ocispec.Descriptor
	for _, target := range targets {
		all, err := withPlatform(ctx, p, target, platforms.All)
		if err != nil {
			return nil, err
		}
		picked := c.pick(slices.DeleteFunc(slices.Clone(all), func(d ocispec.Descriptor) bool { return !suits(match, *d.Platform) }))
		for _, d := range all {
			unwanted[d.Digest] = true
		}
		for _, d := range picked {
			wanted[d.Digest] = true
		}
		present = append(present, all...)
		if len(all) > 0 && len(picked) == 0 {
			unwanted[target.Digest] = true
		} else {
			wanted[target.Digest] = true
		}
	}
	if len(wanted) == 0 && len(present) > 0 {
		return nil, noPlatform(targets[0], present)
	}
	for d := range wanted {
		delete(unwanted, d)
	}
	return unwanted, nil
}

// withPlatform returns the manifests at and below target that are present and for a platform that
// matches, each with its platform.
func withPlatform(ctx context.Context, p Provider, target ocispec.Descriptor, match platforms.Matcher) ([]ocispec.Descriptor, error) {
	var present []candidate
	err := gather(ctx, p, target, match, 0, &present)
	list := make([]ocispec.Descriptor, len(present))
	for i, c := range present {
		list[i] = PlainTarget(c.desc)
		list[i].Platform = &c.platform
	}
	return list, err
}
