package transfer

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/daemon/service/blobs"
	"github.com/cleatproject/cleat/daemon/service/images"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/layout"
	"github.com/cleatproject/cleat/metadata"
)

// importing is one import of an archive.
type importing struct {
	s         *Service
	namespace string
	options   layout.ImportOptions
	to        Store
	unpacks   []unpackTo
	watch     Watcher
}

// Import reads an archive of images, records them under the names that to gives them and
// unpacks them. Names that exist are moved to what the archive holds. What a failed import made is
// removed. Called by daemon/api/transfer/service.go.
func (s *Service) Import(ctx context.Context, namespace string, from Archive, to Store, watch Watcher) (err error) {
	im := &importing{s: s, namespace: namespace, to: to, watch: watch, options: layout.ImportOptions{Compress: from.Compress}}
	if to.Loose { // it takes the place of the archive's own name
		im.options.Name, im.to.Name = to.Name, ""
	}
	im.options.Whole = !to.Loose
	if err := to.checkReferences(); err != nil {
		return err
	}
	if im.unpacks, err = s.unpacks(ctx, namespace, to.Unpacks); err != nil {
		return err
	}
	if from.Path == "" {
		return im.run(ctx, from.In)
	}
	f, err := openArchive(ctx, from.Path, from.Owner)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	return im.run(ctx, f)
}

// run stores what the archive holds, unpacks it and records the names.
func (im *importing) run(ctx context.Context, r io.Reader) (err error) {
	s := im.s
	hold := s.db.Hold(im.namespace)
	var omit images.Omission
	defer func() {
		s.images.Release(ctx, hold, true, err)
		if err == nil && len(omit.Manifests) > 0 {
			s.images.NoteGarbage() // what is left out was stored, and is garbage
		}
	}()
	im.watch.Event("Importing", "")
	held, err := layout.Import(ctx, s.images.Content(im.namespace, hold), r, im.options)
	if err != nil {
		return err
	}
	for _, img := range held {
		if !im.to.Whole {
			break
		}
		if err := image.CheckComplete(ctx, s.blobs.In(im.namespace), img.Target); err != nil {
			return fmt.Errorf("import image %s: %w: %w", img.Name, err, errdefs.ErrInvalidArgument)
		}
	}
	omit, err = im.omission(ctx, held)
	if err != nil {
		return err
	}
	kept := slices.DeleteFunc(held, func(img layout.Imported) bool { return omit.Manifests[img.Target.Digest] })
	list := im.to.imported(kept)
	if err := im.unpack(ctx, list, hold); err != nil {
		return err
	}
	if err := s.saveImages(ctx, im.namespace, list, im.to.Labels, omit, im.watch); err != nil {
		return err
	}
	im.watch.Event("Completed import", "")
	return nil
}

// omission returns what the images do not keep because the platforms and the limit of the destination
// leave it out. The archive is read to its end all the same: what is left out is garbage afterwards.
func (im *importing) omission(ctx context.Context, held []layout.Imported) (images.Omission, error) {
	if im.to.Loose { // keeps all of an archive
		return images.Omission{}, nil
	}
	blobs := im.s.blobs.In(im.namespace)
	all, err := image.Children(ctx, blobs, held[len(held)-1].Target) // with what it says of each image
	if err != nil {
		return images.Omission{}, fmt.Errorf("import archive: %w", err)
	}
	targets := slices.DeleteFunc(all, func(d ocispec.Descriptor) bool {
		return !image.IsIndex(d.MediaType) && !image.IsManifest(d.MediaType)
	})
	unwanted, err := image.Unwanted(ctx, blobs, im.to.Choice, targets...)
	if err != nil {
		return images.Omission{}, fmt.Errorf("import archive: %w", err)
	}
	return images.Omission{Manifests: unwanted, Documents: im.to.Choice.Documents}, nil
}

// unpack unpacks each image once for each that wants it.
func (im *importing) unpack(ctx context.Context, list []layout.Imported, hold *metadata.Hold) error {
	done := make(map[digest.Digest]bool)
	for _, img := range list {
		if done[img.Target.Digest] {
			continue
		}
		done[img.Target.Digest] = true
		if len(im.unpacks) > 0 {
			im.watch.Named("unpacking", img.Name, img.Target)
			if err := foundBelow(ctx, im.s.blobs.In(im.namespace), img.Target, im.watch); err != nil {
				return err
			}
		}
		for _, u := range im.unpacks {
			if err := im.s.unpackFor(ctx, hold, im.namespace, img.Target, u, u.required, nil, im.watch); err != nil {
				return fmt.Errorf("unpack %s: %w", img.Name, err)
			}
		}
		if len(im.unpacks) > 0 {
			im.watch.Part(img.Target, image.StateUnpacked, img.Target.Size)
		}
	}
	return nil
}

// foundBelow reports the parts of an image that are present, each with what names it.
func foundBelow(ctx context.Context, blobs *blobs.View, target ocispec.Descriptor, watch Watcher) error {
	return image.Walk(ctx, blobs, target, func(d ocispec.Descriptor) error {
		children, err := image.Children(ctx, blobs, d)
		if len(children) > 0 {
			watch.Part(d, image.StateUnpacking, d.Size)
		}
		for _, c := range children {
			watch.Found(c, d)
		}
		return err
	})
}
