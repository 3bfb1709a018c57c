package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/cleatproject/cleat/internal/ctxio"
	"github.com/cleatproject/cleat/proto/reason"
)

// Destination is a repository that an image is pushed to.
type Destination interface {
	// Exists reports whether the repository has a blob or document.
	Exists(ctx context.Context, desc ocispec.Descriptor) (bool, error)
	// PushBlob uploads a blob, or mounts it from another repository of the registry if from names one, and
	// reports whether it was mounted without an upload. content opens the blob from an offset on, and may
	// be called more than once.
	PushBlob(ctx context.Context, desc ocispec.Descriptor, from string, content func(offset int64) (io.ReadCloser, error)) (mounted bool, err error)
	// PushManifest uploads a document whose parts are present, and tags it if tag is set.
	PushManifest(ctx context.Context, desc ocispec.Descriptor, raw []byte, tag bool) error
}

// The states of a pushed part; a part that is present in the repository already exists.
const (
	StatePushing State = "uploading"
	StateMounted State = "mounted"
	StatePushed  State = "uploaded"
)

// PushOptions change how an image is pushed. The zero value pushes all of it.
type PushOptions struct {
	// Platform, if not nil, pushes only the manifest that matches it best.
	Platform platforms.MatchComparer
	// Parallel is how many blobs are sent at the same time; 0 for three.
	Parallel int
	// From returns another repository of the registry that has a blob, or ""; nil for none.
	From func(d digest.Digest) string
	// Referrers are documents that are pushed too if their subject is pushed.
	Referrers []ocispec.Descriptor
	// Watch, if not nil, is called with the progress of a part, in bytes.
	Watch func(desc ocispec.Descriptor, state State, done int64)
	// Found, if not nil, is called with a part and its parent before Watch is called for the part.
	Found func(desc, parent ocispec.Descriptor)
}

// pushing is one call of Push.
type pushing struct {
	content Provider
	to      Destination
	opts    PushOptions

	seen      map[digest.Digest]bool
	blobs     []ocispec.Descriptor
	documents []ocispec.Descriptor // children before their parents
}

// Push pushes an image to a repository: the missing blobs, then the documents, children before their
// parents, and the target under its name. It returns the target's descriptor. Not found if a part of the
// image is not present.
func Push(ctx context.Context, p Provider, to Destination, target ocispec.Descriptor, opts PushOptions) (ocispec.Descriptor, error) {
	if opts.Platform != nil {
		_, desc, err := Manifest(ctx, p, target, opts.Platform)
		if err != nil {
			return target, err
		}
		target = PlainTarget(desc)
	}
	if opts.Parallel <= 0 {
		opts.Parallel = defaultParallel
	}
	if opts.Watch == nil {
		opts.Watch = func(ocispec.Descriptor, State, int64) {}
	}
	if opts.Found == nil {
		opts.Found = func(ocispec.Descriptor, ocispec.Descriptor) {}
	}
	w := &pushing{content: p, to: to, opts: opts, seen: make(map[digest.Digest]bool)}
	if err := w.gather(ctx, target, 0); err != nil {
		return target, err
	}
	if err := w.gatherReferrers(ctx); err != nil {
		return target, err
	}
	if err := w.sendBlobs(ctx); err != nil {
		return target, err
	}
	for _, d := range w.documents {
		if err := w.sendDocument(ctx, d, d.Digest == target.Digest); err != nil {
			return target, err
		}
	}
	return target, nil
}

// gather lists the content of the image at desc, all of which has to be present.
func (w *pushing) gather(ctx context.Context, desc ocispec.Descriptor, depth int) error {
	if depth > MaxNesting {
		return invalidf("indexes are nested more than %d deep", MaxNesting)
	}
	if w.seen[desc.Digest] {
		return nil
	}
	w.seen[desc.Digest] = true
	if !IsIndex(desc.MediaType) && !IsManifest(desc.MediaType) {
		if err := w.checkPresent(ctx, desc); err != nil {
			return err
		}
		w.blobs = append(w.blobs, desc)
		w.opts.Watch(desc, StateWaiting, 0)
		return nil
	}
	children, err := Children(ctx, w.content, desc)
	if err != nil {
		return incomplete(desc, err)
	}
	w.opts.Watch(desc, StateWaiting, 0) // before its parts
	for _, c := range children {
		if len(c.URLs) > 0 && w.checkPresent(ctx, c) != nil {
			continue // a layer that registries do not store
		}
		w.opts.Found(c, desc)
		if err := w.gather(ctx, c, depth+1); err != nil {
			return err
		}
	}
	w.documents = append(w.documents, desc)
	return nil
}

// gatherReferrers lists the documents that refer to pushed ones, recursively.
func (w *pushing) gatherReferrers(ctx context.Context) error {
	subjects := make([]digest.Digest, len(w.opts.Referrers))
	for i, c := range w.opts.Referrers {
		var err error
		if subjects[i], err = subjectOf(ctx, w.content, c); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	for more := true; more; {
		more = false
		for i, c := range w.opts.Referrers {
			if w.seen[c.Digest] || subjects[i] == "" || !w.seen[subjects[i]] {
				continue
			}
			if err := w.gather(ctx, c, 0); err != nil {
				return err
			}
			more = true
		}
	}
	return nil
}

// subjectOf returns the digest that a document refers to, or "".
func subjectOf(ctx context.Context, p Provider, desc ocispec.Descriptor) (digest.Digest, error) {
	if !IsIndex(desc.MediaType) && !IsManifest(desc.MediaType) {
		return "", nil
	}
	raw, err := ReadDocument(ctx, p, desc)
	if err != nil {
		return "", err
	}
	var doc struct {
		Subject *ocispec.Descriptor `json:"subject"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return "", invalidf("%s %s is not JSON: %v", desc.MediaType, desc.Digest, err)
	}
	if doc.Subject == nil {
		return "", nil
	}
	return doc.Subject.Digest, nil
}

// checkPresent returns an error if a blob is not present.
func (w *pushing) checkPresent(ctx context.Context, desc ocispec.Descriptor) error {
	b, err := w.content.ReaderAt(ctx, desc.Digest)
	if err != nil {
		return incomplete(desc, err)
	}
	return b.Close()
}

func incomplete(desc ocispec.Descriptor, err error) error {
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("image is incomplete: missing %s %s: %w", desc.MediaType, desc.Digest, reason.ImageIncomplete)
	}
	return err
}

func (w *pushing) sendBlobs(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(min(w.opts.Parallel, maxParallel))
	for _, d := range w.blobs {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return w.sendBlob(ctx, d)
		})
	}
	return g.Wait()
}

func (w *pushing) sendBlob(ctx context.Context, desc ocispec.Descriptor) error {
	exists, err := w.to.Exists(ctx, desc)
	if err != nil {
		return err
	}
	if exists {
		w.opts.Watch(desc, StateExists, desc.Size)
		return nil
	}
	from := ""
	if w.opts.From != nil {
		from = w.opts.From(desc.Digest)
	}
	w.opts.Watch(desc, StatePushing, 0)
	mounted, err := w.to.PushBlob(ctx, desc, from, func(offset int64) (io.ReadCloser, error) { return w.open(ctx, desc, offset) })
	switch {
	case err != nil:
		return err
	case mounted:
		w.opts.Watch(desc, StateMounted, desc.Size)
	default:
		w.opts.Watch(desc, StatePushed, desc.Size)
	}
	return nil
}

// sent reads a blob and reports the progress.
type sent struct {
	io.Reader
	io.Closer
}

// open opens a blob from an offset on.
func (w *pushing) open(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	b, err := w.content.ReaderAt(ctx, desc.Digest)
	if err != nil {
		return nil, err
	}
	if b.Size() != desc.Size {
		return nil, errors.Join(invalidf("blob %s: %d bytes, %d in its descriptor", desc.Digest, b.Size(), desc.Size), b.Close())
	}
	section := io.NewSectionReader(b, offset, b.Size()-offset)
	done := offset
	return sent{ctxio.ReaderFunc(func(p []byte) (int, error) {
		n, err := section.Read(p)
		done += int64(n)
		w.opts.Watch(desc, StatePushing, done)
		return n, err
	}), b}, nil
}

// sendDocument uploads an index or manifest, the target also if it exists: the name may refer to another.
func (w *pushing) sendDocument(ctx context.Context, desc ocispec.Descriptor, tag bool) error {
	if !tag {
		exists, err := w.to.Exists(ctx, desc)
		if err != nil {
			return err
		}
		if exists {
			w.opts.Watch(desc, StateExists, desc.Size)
			return nil
		}
	}
	raw, err := ReadDocument(ctx, w.content, desc)
	if err != nil {
		return err
	}
	if err := w.to.PushManifest(ctx, desc, raw, tag); err != nil {
		return err
	}
	w.opts.Watch(desc, StatePushed, desc.Size)
	return nil
}
