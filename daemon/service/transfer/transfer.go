// Package transfer moves images between registries, archives and the images of a namespace: pull, push, import,
// export and tag. The ends that containerd's API publishes and those that cleat's adds become the same three here:
// Remote, Archive and Store.
//
// A transfer names images in one commit at its end: until then nothing is visible. Content that it fetched is kept by
// a lease, which outlives an interrupted pull so that the next one resumes it; what a failed import wrote is collected
// at once. A transfer reports its progress to a Watcher and ends with its context.
package transfer

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/daemon/service/blobs"
	"github.com/cleatproject/cleat/daemon/service/images"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/layout"
	"github.com/cleatproject/cleat/image/registry"
	"github.com/cleatproject/cleat/internal/keylock"
	"github.com/cleatproject/cleat/metadata"
)

// Service moves images between registries, archives and the store. Its methods may be called concurrently.
type Service struct {
	db         *metadata.DB
	blobs      *blobs.Store
	images     *images.Store
	registries *registry.Client

	locks keylock.Locks[string] // of blobs that are fetched
	pulls pullLeases
}

// New returns the transfers between the images in db and blobs, and the registries.
func New(db *metadata.DB, b *blobs.Store, images *images.Store, registries *registry.Client) *Service {
	return &Service{db: db, blobs: b, images: images, registries: registries}
}

// Watcher follows a transfer. Its methods may be called by several at the same time, and do not wait.
type Watcher interface {
	// Event reports what is being done: for a name, or for the whole with "".
	Event(event, name string)
	// Named reports what is done to the image of a name, and that its parts are those of desc.
	Named(event, name string, desc ocispec.Descriptor)
	// Found reports a part, and what refers to it, before anything else is reported of the part.
	Found(desc, parent ocispec.Descriptor)
	// Part reports the progress of a part, in bytes.
	Part(desc ocispec.Descriptor, state image.State, done int64)
	// Pushed reports at the end of a push what the registry has, and under which name.
	Pushed(name string, desc ocispec.Descriptor)
}

// Remote is a registry as the end of a transfer.
type Remote struct {
	Reference string
	Access    registry.Access
	// Parallel is how many blobs are moved at the same time; 0 for three.
	Parallel int
}

// Store is the images of a namespace as the end of a transfer.
type Store struct {
	// Name is an image's, exactly.
	Name string
	// Loose takes the name where an image is stored as people write it: it is completed, and none stands
	// for a registry's reference, or for the names in an archive.
	Loose bool
	// Labels are those that the image is given; none leave those it has.
	Labels map[string]string
	// Choice says which of an image's manifests are wanted.
	Choice image.Choice
	// Best has a pull take, instead of the choice, the one manifest that suits its first platform best, or
	// this host where it has none.
	Best bool
	// Whole has a transfer from or to an archive fail where an image lacks one of its platforms.
	Whole bool
	// Referrers has a push bring what is here under a name and refers to the image or to a part of it.
	Referrers bool
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
	// Required has an import fail that has nothing for the platform.
	Required bool
}

// Archive is an archive of images as the end of a transfer.
type Archive struct {
	// Path is a FIFO's or regular file's; where it is "" the bytes are in In, or go to Out.
	Path string
	// Owner, where set, is the only user whose FIFO Path may lead to; files are refused then.
	Owner *uint32
	In    io.Reader
	Out   io.Writer
	// Compress packs the plain layers of an archive that says nothing of their digests.
	Compress bool
	// Export says what goes into it.
	Export layout.ExportOptions
}

// unpackTo is an Unpack with its defaults.
type unpackTo struct {
	match       platforms.MatchComparer // nil for this host's
	snapshotter string
	required    bool
}

// unpacks fills in defaults and checks the names.
func (s *Service) unpacks(ctx context.Context, namespace string, list []Unpack) (_ []unpackTo, err error) {
	out := make([]unpackTo, len(list))
	for i, u := range list {
		out[i].required = u.Required
		if out[i].snapshotter, err = s.images.Snapshotter(ctx, namespace, u.Snapshotter); err != nil {
			return nil, err
		}
		if u.Platform != nil {
			out[i].match = platforms.Only(*u.Platform)
		}
	}
	return out, nil
}

// unpackFor is unpack as a transfer asks for it. If it is not required, an image without a manifest for the
// platform is skipped.
func (s *Service) unpackFor(
	ctx context.Context, hold *metadata.Hold, namespace string, target ocispec.Descriptor, u unpackTo, required bool,
	from *image.Fetching, watch Watcher,
) error {
	if !required {
		_, _, err := image.Manifest(ctx, s.blobs.In(namespace), target, u.match)
		if errdefs.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	_, err := s.images.Unpack(ctx, hold, namespace, target, images.UnpackOptions{
		Snapshotter: u.snapshotter, Platform: u.match, From: from,
		Watch: func(desc ocispec.Descriptor, state image.State) { watch.Part(desc, state, desc.Size) },
	})
	return err
}

// check refuses names that cannot be any.
func (d *Store) check() error {
	if d.Name == "" && len(d.References) == 0 {
		return fmt.Errorf("image store: it names no image: %w", errdefs.ErrInvalidArgument)
	}
	return d.checkReferences()
}

// single refuses several images where one is moved.
func (d *Store) single() error {
	if d.Loose && len(d.References) > 0 {
		return fmt.Errorf("image store: several images, want one: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

// checkTarget is check for where one image is stored.
func (d *Store) checkTarget() error {
	if err := d.checkReferences(); err != nil {
		return err
	}
	if len(d.named("")) == 0 {
		return fmt.Errorf("image store: no name to store under: %w", errdefs.ErrInvalidArgument)
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

// saveImages names what a transfer brought, and reports it to the watcher.
func (s *Service) saveImages(ctx context.Context, namespace string, list []layout.Imported, labels map[string]string, omit images.Omission, watch Watcher) error {
	recorded, err := s.images.RecordAll(ctx, namespace, list, labels, omit)
	if err != nil {
		return err
	}
	for _, img := range recorded {
		watch.Named("saved", img.Name, img.Target)
	}
	return nil
}
