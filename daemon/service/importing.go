package service

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// importing is one import of an archive.
type importing struct {
	s         *Service
	namespace string
	options   image.ImportOptions
	to        Store
	unpacks   []unpackTo
	// pass lets an image that has nothing for a platform to unpack go by.
	pass  bool
	watch Watcher
	// complete refuses images that are not there for all their platforms.
	complete bool
}

// ImportImages reads an archive of images from r, records them under the names that to gives them and
// unpacks them. Names that exist are moved to what the archive holds. What a failed import made is
// removed. Called by daemon/api/transferservice.go, and through Import by daemon/api/native.go.
func (s *Service) ImportImages(ctx context.Context, namespace string, r io.Reader, from Archive, to Store, watch Watcher) (err error) {
	im := &importing{
		s: s, namespace: namespace, to: to, watch: watch, pass: true,
		options: image.ImportOptions{Whole: to.wantsWhole(), Compress: from.Compress},
	}
	if err := to.checkReferences(); err != nil {
		return err
	}
	if im.unpacks, err = s.unpacks(ctx, namespace, to.Unpacks); err != nil {
		return err
	}
	_, err = im.run(ctx, r)
	return err
}

// Import is ImportImages as cleat's own call wants it: where the options name a path the archive is there.
func (s *Service) Import(ctx context.Context, namespace string, r io.Reader, o *cleatapi.ImportOptions) (_ []*cleatapi.Image, err error) {
	match, err := parsePlatform(o.Platform)
	if err != nil {
		return nil, err
	}
	im := &importing{
		s: s, namespace: namespace, options: image.ImportOptions{Name: o.Name}, watch: unwatched{},
		// What is there for all its platforms need not have this machine's: a pull of all takes it too.
		complete: o.AllPlatforms, pass: o.AllPlatforms && o.Platform == "",
	}
	if !o.NoUnpack {
		if im.unpacks, err = s.unpacks(ctx, namespace, []Unpack{{Snapshotter: o.Snapshotter}}); err != nil {
			return nil, err
		}
		im.unpacks[0].match = match
	}
	if o.Path != "" {
		f, err := openArchive(ctx, o.Path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }() // it was only read
		r = f
	}
	return im.run(ctx, r)
}

// run stores what the archive holds, unpacks it and records the names.
func (im *importing) run(ctx context.Context, r io.Reader) (_ []*cleatapi.Image, err error) {
	s := im.s
	hold := s.DB.Hold(im.namespace)
	defer func() { s.letGo(ctx, hold, true, err) }()
	im.watch.Event("Importing", "")
	held, err := image.Import(ctx, settling{ingester{s.Blobs(im.namespace), hold}}, r, im.options)
	if err != nil {
		return nil, err
	}
	for _, img := range held {
		if !im.complete {
			break
		}
		if err := image.Whole(ctx, s.Blobs(im.namespace), img.Target); err != nil {
			return nil, fmt.Errorf("import image %s: %w: %w", img.Name, err, errdefs.ErrInvalidArgument)
		}
	}
	list, err := im.to.imported(held)
	if err != nil {
		return nil, err
	}
	if err := im.unpack(ctx, list, hold); err != nil {
		return nil, err
	}
	out, err := s.recordImages(ctx, im.namespace, list, im.to.Labels)
	if err != nil {
		return nil, err
	}
	for _, img := range out {
		im.watch.Event("saved", img.Name)
	}
	im.watch.Event("Completed import", "")
	return out, nil
}

// unpack unpacks each image once for each that wants it.
func (im *importing) unpack(ctx context.Context, list []image.Imported, hold *metadata.Hold) error {
	done := make(map[digest.Digest]bool)
	for _, img := range list {
		if done[img.Target.Digest] {
			continue
		}
		done[img.Target.Digest] = true
		im.watch.Found(img.Target, ocispec.Descriptor{})
		for _, u := range im.unpacks {
			if err := im.unpackFor(ctx, img, u, hold); err != nil {
				return fmt.Errorf("unpack %s: %w", img.Name, err)
			}
		}
	}
	return nil
}

func (im *importing) unpackFor(ctx context.Context, img image.Imported, u unpackTo, hold *metadata.Hold) error {
	s := im.s
	if im.pass {
		_, _, err := image.Manifest(ctx, s.Blobs(im.namespace), img.Target, u.match)
		if errdefs.IsNotFound(err) {
			return nil // an image for other machines
		}
		if err != nil {
			return err
		}
	}
	_, err := s.unpack(ctx, hold, im.namespace, img.Target, u.snapshotter, u.match, &arrivals{watcher: im.watch})
	return err
}

// unwatched is a Watcher for nobody.
type unwatched struct{}

func (unwatched) Event(string, string)                         {}
func (unwatched) Found(ocispec.Descriptor, ocispec.Descriptor) {}
func (unwatched) Part(ocispec.Descriptor, image.State, int64)  {}

// settling finishes each commit that has begun, whoever cancels meanwhile: half of one is a blob in
// the store that no record names, and that nothing would remove.
type settling struct{ ingester }

// Writer implements image.Ingester.
func (i settling) Writer(ctx context.Context, ref string, opts content.WriterOptions) (image.BlobWriter, error) {
	w, err := i.ingester.Writer(ctx, ref, opts)
	if err != nil {
		return nil, err
	}
	return settlingWriter{w}, nil
}

type settlingWriter struct{ image.BlobWriter }

// Commit implements image.BlobWriter.
func (w settlingWriter) Commit(ctx context.Context, size int64, expected digest.Digest) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return w.BlobWriter.Commit(context.WithoutCancel(ctx), size, expected)
}
