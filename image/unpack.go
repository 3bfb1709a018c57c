package image

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// undoTime bounds the removal of a snapshot that came to nothing.
const undoTime = 30 * time.Second

// UnpackOptions change how an image is unpacked. The zero value is right for running it
// on this machine.
type UnpackOptions struct {
	// Platform chooses among an image's manifests; nil is this machine's.
	Platform platforms.MatchComparer
	// Wait returns once a layer's content is here, for an image that is being fetched; nil where all
	// is here.
	Wait func(ctx context.Context, desc ocispec.Descriptor) error
	// Watch is told when a layer is begun and when it is done; nil for nobody.
	Watch func(desc ocispec.Descriptor, state State)
}

// Unpacked is an image that can be mounted.
type Unpacked struct {
	// Snapshot is the name of the committed snapshot of the topmost layer; "" for an
	// image without layers.
	Snapshot string
	Manifest ocispec.Descriptor
	Config   ocispec.Image
}

// Unpack makes the committed snapshots of an image, those that are missing. It is
// idempotent, and may run beside itself. The content has to be here (not found). A layer
// that is damaged, hostile or not what the configuration says is an invalid argument, and
// leaves no snapshot; the layers below it stay.
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
	config, err := readConfig(ctx, p, manifest.Config)
	if err != nil {
		return Unpacked{}, err
	}
	u := Unpacked{Manifest: desc, Config: config}
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
	for i := first; i < len(chain); i++ {
		parent := ""
		if i > 0 {
			parent = chain[i-1].String()
		}
		l := layer{desc: manifest.Layers[i], diffID: diffIDs[i], name: chain[i].String(), parent: parent}
		if err := l.unpack(ctx, p, s, opts); err != nil {
			return u, fmt.Errorf("layer %d of %d, %s: %w", i+1, len(chain), l.desc.Digest, err)
		}
	}
	u.Snapshot = chain[len(chain)-1].String()
	return u, nil
}

// firstMissing returns the number of the lowest layer without a snapshot. It looks from
// the top: a snapshot's parents are there with it.
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

// layer is a layer to be unpacked.
type layer struct {
	desc         ocispec.Descriptor
	diffID       digest.Digest
	name, parent string // of the snapshots
}

// unpack makes one snapshot: wait for the content, prepare, apply, verify, commit.
func (l *layer) unpack(ctx context.Context, p Provider, s Snapshots, opts UnpackOptions) (err error) {
	if !IsLayer(l.desc.MediaType) {
		return fmt.Errorf("layers of the type %q are not supported: %w", l.desc.MediaType, errdefs.ErrNotImplemented)
	}
	if opts.Wait != nil {
		if err := opts.Wait(ctx, l.desc); err != nil {
			return err
		}
	}
	if opts.Watch != nil {
		opts.Watch(l.desc, StateUnpacking)
		defer func() {
			if err == nil {
				opts.Watch(l.desc, StateUnpacked)
			}
		}()
	}
	blob, err := p.ReaderAt(ctx, l.desc.Digest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	key := "unpack-" + rand.Text() + " " + l.name
	mounts, err := s.Prepare(ctx, key, l.parent)
	if err != nil {
		return err
	}
	committed := false
	defer func() {
		if committed {
			return
		}
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		err = errors.Join(err, s.Remove(undo, key))
	}()
	if err := l.apply(ctx, blob, mounts); err != nil {
		return err
	}
	switch err := s.Commit(ctx, l.name, key); {
	case err == nil:
		committed = true
	case !errdefs.IsAlreadyExists(err):
		return err
	}
	return nil
}
