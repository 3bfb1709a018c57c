package image

import (
	"context"
	"fmt"

	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/internal/gate"
)

// UnpackOptions change how an image is unpacked. The zero value is right for running it
// on this machine.
type UnpackOptions struct {
	// Platform chooses among an image's manifests; nil is this machine's.
	Platform platforms.MatchComparer
	ApplyOptions
	// AtOnce bounds the layers that are unpacked in parallel; 0 means one per processor, at
	// least two.
	AtOnce int
	// Gate bounds the layers that several unpacks fill in parallel; nil for no common bound.
	Gate *gate.Gate
	// From fetches the image's layers: each is unpacked as its bytes arrive. nil if all content is present.
	From *Fetching
	// Watch, if not nil, is called when a layer is started and when it is done. It may be called
	// concurrently.
	Watch func(desc ocispec.Descriptor, state State)
}

// Unpacked is an image that can be mounted.
type Unpacked struct {
	// Snapshot is the name of the committed snapshot of the topmost layer; "" for an
	// image without layers.
	Snapshot     string
	Manifest     ocispec.Descriptor
	Config       ocispec.Image
	ConfigDigest digest.Digest
}

// Unpack creates the missing committed snapshots of an image. It is idempotent, and safe
// for concurrent use. The content has to be present (not found). A layer that is corrupt,
// hostile or does not match the configuration is an invalid argument, and leaves no snapshot;
// the layers below it remain.
func Unpack(ctx context.Context, p Provider, s Snapshots, target ocispec.Descriptor, opts UnpackOptions) (Unpacked, error) {
	u, err := unpack(ctx, p, s, target, opts)
	if err != nil {
		return u, fmt.Errorf("unpack image %s: %w", target.Digest, err)
	}
	return u, nil
}

func unpack(ctx context.Context, p Provider, s Snapshots, target ocispec.Descriptor, opts UnpackOptions) (Unpacked, error) {
	manifest, desc, err := Manifest(ctx, p, target, opts.Platform)
	if err != nil {
		return Unpacked{}, err
	}
	config, err := ReadConfigOf(ctx, p, manifest.Config)
	if err != nil {
		return Unpacked{}, err
	}
	u := Unpacked{Manifest: desc, Config: config, ConfigDigest: manifest.Config.Digest}
	diffIDs := config.RootFS.DiffIDs
	if len(diffIDs) != len(manifest.Layers) {
		return u, invalidf("manifest has %d layers, its configuration lists %d", len(manifest.Layers), len(diffIDs))
	}
	if len(diffIDs) == 0 {
		return u, nil
	}
	chain := ChainIDs(diffIDs)
	first, err := firstMissing(ctx, s, chain)
	if err != nil {
		return u, err
	}
	layers := make([]layer, 0, len(chain)-first)
	for i := first; i < len(chain); i++ {
		l := layer{desc: manifest.Layers[i], diffID: diffIDs[i], name: chain[i].String(), number: i + 1, of: len(chain)}
		if i > 0 {
			l.parent = chain[i-1].String()
		}
		layers = append(layers, l)
	}
	if err := unpackLayers(ctx, p, s, layers, opts); err != nil {
		return u, err
	}
	u.Snapshot = chain[len(chain)-1].String()
	return u, nil
}

// firstMissing returns the index of the lowest layer without a snapshot. It searches from
// the top: the parents of a snapshot exist if it does.
func firstMissing(ctx context.Context, s Snapshots, chain []digest.Digest) (int, error) {
	for i := len(chain); i > 0; i-- {
		ok, err := s.Exists(ctx, chain[i-1].String())
		if err != nil {
			return 0, err
		}
		if ok {
			return i, nil
		}
	}
	return 0, nil
}
