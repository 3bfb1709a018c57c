package image

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/proto/reason"
)

// Source provides an image's content.
type Source interface {
	// Fetch returns the bytes of a blob or document from offset on, as many as its descriptor states
	// or an error. They are verified by the caller, who closes the reader.
	Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error)
}

// State is the progress of a part of an image.
type State string

// The states, in order; a part that was present goes from waiting to exists.
const (
	StateWaiting   State = "waiting"
	StateFetching  State = "downloading"
	StateExists    State = "exists"
	StateFetched   State = "downloaded"
	StateUnpacking State = "unpacking"
	StateUnpacked  State = "unpacked"
)

const (
	defaultParallel = 3
	maxParallel     = 64
	// MaxManifests bounds the documents of one image, maxParts the layers of all its manifests.
	MaxManifests = 1000
	maxParts     = 10_000
)

// FetchOptions change what is fetched. The zero value is right for running an image on this machine.
type FetchOptions struct {
	// Platform chooses among an image's manifests; nil is this machine's.
	Platform platforms.MatchComparer
	// Some, if not nil, replaces Platform.
	Some *Choice
	// Parallel is how many layers are fetched at the same time; 0 for three.
	Parallel int
	// Watch, if not nil, is called with the progress of a part, in bytes. It is called
	// concurrently.
	Watch func(desc ocispec.Descriptor, state State, done int64)
	// Found, if not nil, is called with a part and its parent before Watch is called for the part.
	Found func(desc, parent ocispec.Descriptor)
}

// Fetching is an image whose documents are present and whose layers may not be.
type Fetching struct {
	content Content
	source  Source
	opts    FetchOptions

	documents int
	layers    []ocispec.Descriptor
	arrivals  map[digest.Digest]*arrival
}

// FetchRef returns the reference of the ingest of a fetched blob. It is always the same, so that
// the next fetch of the blob resumes the ingest.
func FetchRef(d digest.Digest) string { return "fetch-" + d.String() }

// Downloads returns the number of parallel downloads for the requested one; 0 is the default.
func Downloads(parallel int) int {
	if parallel <= 0 {
		return defaultParallel
	}
	return min(parallel, maxParallel)
}

// Fetch fetches the documents of the image at target: indexes, the selected manifests and their
// configurations. Layers then fetches the rest. Present blobs are not fetched. Errors of the class
// invalid argument or failed precondition blame the image or its source; only ingests of layers
// remain, to be resumed.
func Fetch(ctx context.Context, c Content, s Source, target ocispec.Descriptor, opts FetchOptions) (*Fetching, error) {
	f := &Fetching{content: c, source: s, opts: opts, arrivals: make(map[digest.Digest]*arrival)}
	f.opts.Parallel = Downloads(f.opts.Parallel)
	if f.opts.Platform == nil {
		f.opts.Platform = platforms.Default()
	}
	var err error
	if opts.Some != nil {
		err = f.some(ctx, target)
	} else {
		err = f.best(ctx, target)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// everything fetches the documents at and below desc.
func (f *Fetching) everything(ctx context.Context, desc ocispec.Descriptor, depth int) error {
	switch {
	case IsManifest(desc.MediaType):
		err := f.manifest(ctx, desc)
		return err
	case !IsIndex(desc.MediaType):
		return NotAnImage(desc)
	case depth >= MaxNesting:
		return invalidf("indexes are nested more than %d deep", MaxNesting)
	}
	if err := f.document(ctx, desc); err != nil {
		return err
	}
	index, err := ReadIndex(ctx, f.content, desc)
	if err != nil {
		return err
	}
	for _, d := range index.Manifests {
		if !IsIndex(d.MediaType) && !IsManifest(d.MediaType) {
			continue // the index still names it
		}
		f.found(d, desc)
		if err := f.everything(ctx, d, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// best fetches the documents of the manifest that matches the platform best.
func (f *Fetching) best(ctx context.Context, target ocispec.Descriptor) error {
	if IsManifest(target.MediaType) {
		err := f.manifest(ctx, target)
		return err
	}
	var found, others []ocispec.Descriptor
	if err := f.candidates(ctx, target, 0, &found, &others); err != nil {
		return err
	}
	if len(found) == 0 {
		return noPlatform(target, others)
	}
	match := f.opts.Platform
	slices.SortStableFunc(found, func(a, b ocispec.Descriptor) int {
		switch {
		case match.Less(*a.Platform, *b.Platform):
			return -1
		case match.Less(*b.Platform, *a.Platform):
			return 1
		default:
			return 0
		}
	})
	err := f.manifest(ctx, found[0])
	return err
}

// candidates adds the manifests below desc that match, each with its platform.
func (f *Fetching) candidates(ctx context.Context, desc ocispec.Descriptor, depth int, found, others *[]ocispec.Descriptor) error {
	switch {
	case !IsIndex(desc.MediaType):
		return NotAnImage(desc)
	case depth >= MaxNesting:
		return invalidf("indexes are nested more than %d deep", MaxNesting)
	}
	if err := f.document(ctx, desc); err != nil {
		return err
	}
	index, err := ReadIndex(ctx, f.content, desc)
	if err != nil {
		return err
	}
	for _, d := range index.Manifests {
		f.found(d, desc)
		switch {
		case IsIndex(d.MediaType) && (!namesPlatform(d) || f.opts.Platform.Match(*d.Platform)):
			if err := f.candidates(ctx, d, depth+1, found, others); err != nil {
				return err
			}
			continue
		case !IsManifest(d.MediaType):
			continue
		case !namesPlatform(d):
			if d.Platform, err = f.platformOf(ctx, d); err != nil {
				return err
			}
		}
		if d.Platform != nil && suits(f.opts.Platform, *d.Platform) {
			*found = append(*found, d)
		} else if d.Platform != nil {
			*others = append(*others, d)
		}
	}
	return nil
}

// platformOf reads the platform of a manifest whose index states none; nil if it is not an image.
func (f *Fetching) platformOf(ctx context.Context, desc ocispec.Descriptor) (*ocispec.Platform, error) {
	if err := f.document(ctx, desc); err != nil {
		return nil, err
	}
	m, err := ReadManifest(ctx, f.content, desc)
	if err != nil {
		return nil, err
	}
	if !IsConfig(m.Config.MediaType) {
		return nil, nil // no platform is not an error
	}
	if err := f.document(ctx, m.Config); err != nil {
		return nil, err
	}
	config, err := ReadConfigOf(ctx, f.content, m.Config)
	if err != nil {
		return nil, err
	}
	p := platforms.Normalize(config.Platform)
	return &p, nil
}

// manifest fetches a manifest with its configuration, and records its layers.
func (f *Fetching) manifest(ctx context.Context, desc ocispec.Descriptor) error {
	if err := f.document(ctx, desc); err != nil {
		return err
	}
	m, err := ReadManifest(ctx, f.content, desc)
	if err != nil {
		return err
	}
	f.found(m.Config, desc)
	if err := f.document(ctx, m.Config); err != nil {
		return err
	}
	for _, l := range m.Layers {
		f.found(l, desc)
		if _, ok := f.arrivals[l.Digest]; !ok {
			f.arrivals[l.Digest] = newArrival()
			f.layers = append(f.layers, l)
			f.watch(l, StateWaiting, 0)
		}
	}
	if len(f.layers) > maxParts {
		return invalidf("image has more than %d layers for all its platforms", maxParts)
	}
	return nil
}

// document fetches an index, manifest or configuration.
func (f *Fetching) document(ctx context.Context, desc ocispec.Descriptor) error {
	if f.documents++; f.documents > MaxManifests {
		return invalidf("image has more than %d documents", MaxManifests)
	}
	if desc.Size < 0 || desc.Size > MaxDocument {
		return invalidf("%s %s: size %d exceeds the maximum of %d", desc.MediaType, desc.Digest, desc.Size, MaxDocument)
	}
	return f.blob(ctx, desc, nil)
}

func (f *Fetching) watch(desc ocispec.Descriptor, state State, done int64) {
	if f.opts.Watch != nil {
		f.opts.Watch(desc, state, done)
	}
}

func (f *Fetching) found(desc, parent ocispec.Descriptor) {
	if f.opts.Found != nil {
		f.opts.Found(desc, parent)
	}
}

// NotAnImage returns the error for a document that is neither an index nor a manifest.
func NotAnImage(desc ocispec.Descriptor) error {
	return fmt.Errorf("content %s of type %.100q is not an image: %w", desc.Digest, desc.MediaType, errdefs.ErrNotImplemented)
}

func noPlatform(target ocispec.Descriptor, others []ocispec.Descriptor) error {
	return fmt.Errorf("image %s has no manifest for this platform, only for %s: %w", target.Digest, listPlatforms(others), reason.PlatformNotFound)
}

// listPlatforms names some of the platforms.
func listPlatforms(list []ocispec.Descriptor) string {
	const most = 12
	text := ""
	for i, d := range list {
		if i == most {
			return text + " and more"
		}
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%.40s", platforms.Format(*d.Platform))
	}
	if text == "" {
		return "none"
	}
	return text
}
