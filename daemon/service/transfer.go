package service

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/registry"
)

// What a transfer is between: containerd's transfer service and cleat's own calls come to the same
// functions with these.

// Watcher follows a transfer. Its methods may be called by several at the same time, and do not wait.
type Watcher interface {
	// Event tells what is being done: about a name, or about the whole with "".
	Event(event, name string)
	// Found tells of a part, and what names it, before anything else is told about the part.
	Found(desc, parent ocispec.Descriptor)
	// Part tells how far a part has come, in bytes.
	Part(desc ocispec.Descriptor, state image.State, done int64)
}

// Remote is a registry as the end of a transfer.
type Remote struct {
	Reference string
	Access    registry.Access
}

// Store is the images of a namespace as the end of a transfer.
type Store struct {
	// Name is an image's, exactly.
	Name string
	// Labels are those that the image is given; none leave those it has.
	Labels map[string]string
	// Choice says which of an image's manifests are wanted.
	Choice image.Choice
	// References are further names.
	References []Reference
	// Unpacks say what to unpack; none unpacks nothing.
	Unpacks []Unpack
}

// Unpack says what to unpack.
type Unpack struct {
	// Platform, or nil for this host's.
	Platform *ocispec.Platform
	// Snapshotter to unpack to; "" for the namespace's.
	Snapshotter string
}

// Archive is an archive of images as the end of a transfer.
type Archive struct {
	// Compress packs the plain layers of an archive that says nothing of their digests.
	Compress bool
	// Export says what goes into it.
	Export image.ExportOptions
}

// unpackTo is an Unpack with its defaults.
type unpackTo struct {
	match       platforms.MatchComparer // nil for this host's
	snapshotter string
}

// unpacks fills in defaults and checks the names.
func (s *Service) unpacks(ctx context.Context, namespace string, list []Unpack) ([]unpackTo, error) {
	def, err := s.defaultSnapshotter(ctx, namespace)
	if err != nil {
		return nil, err
	}
	out := make([]unpackTo, len(list))
	for i, u := range list {
		out[i].snapshotter = first(u.Snapshotter, def)
		if _, err := s.driver(out[i].snapshotter); err != nil {
			return nil, err
		}
		if u.Platform != nil {
			out[i].match = platforms.Only(*u.Platform)
		}
	}
	return out, nil
}

// check refuses names that cannot be any.
func (d *Store) check() error {
	if d.Name == "" && len(d.References) == 0 {
		return fmt.Errorf("image store: it names no image: %w", errdefs.ErrInvalidArgument)
	}
	return d.checkReferences()
}

// checkTarget is check for where one image is stored.
func (d *Store) checkTarget() error {
	if err := d.checkReferences(); err != nil {
		return err
	}
	if len(d.named("")) == 0 {
		return fmt.Errorf("image store: it names no image to store: give a name: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

func (d *Store) checkReferences() error {
	for _, r := range d.References {
		if r.Name == "" {
			return fmt.Errorf("image store: an extra reference has no name: %w", errdefs.ErrInvalidArgument)
		}
	}
	return nil
}
