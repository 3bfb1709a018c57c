// Package images holds the use cases of images: names of content, as records; the labels on content by which an
// image's documents keep what they refer to; and the layers of images as snapshots.
//
// A name, its labels and its events change in one transaction. What a call reads or writes is held against
// collections until the call ends (metadata.Hold); what a failed call wrote is collected at once. An image is unpacked
// once for each snapshotter, however many calls request it. Content that is missing or damaged is reported by the
// calls that need it and tolerated by lists, so that such an image can be removed.
//
// Moving images from and to registries and archives is package transfer's.
package images

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	goruntime "runtime"
	"sync"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/daemon/service/announce"
	"github.com/cleatproject/cleat/daemon/service/blobs"
	"github.com/cleatproject/cleat/daemon/service/namespaces"
	"github.com/cleatproject/cleat/daemon/service/snapshots"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/layout"
	"github.com/cleatproject/cleat/internal/gate"
	"github.com/cleatproject/cleat/internal/keylock"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// Collector removes what no image refers to any more.
type Collector interface {
	// Changed counts changes of which the database knows nothing.
	Changed(metadata.Changes)
	// Collect runs a collection, or joins the next one.
	Collect(context.Context) (*cleatapi.CollectResponse, error)
}

// Config is what a Store works with; all fields are required, but Apply.
type Config struct {
	DB        *metadata.DB
	Blobs     *blobs.Store
	Snapshots *snapshots.Store
	Collector Collector
	Defaults  namespaces.Defaults
	// Apply says how layers are unpacked.
	Apply image.ApplyOptions
	Log   *slog.Logger
}

// Store is the images of all namespaces: their records, the labels that keep their content, and their unpacked
// layers. Its methods may be called concurrently.
type Store struct {
	db        *metadata.DB
	blobs     *blobs.Store
	snapshots *snapshots.Store
	collector Collector
	defaults  namespaces.Defaults
	apply     image.ApplyOptions
	log       *slog.Logger

	cache cache
	locks keylock.Locks[string] // of unpacks and of targets of mounts
	// unpacking bounds the layers that all pulls and imports unpack at the same time.
	unpacking *gate.Gate
}

// unpacksAtOnce is how many layers are unpacked at the same time, for each processor. One that takes longer than
// unpackLease waits for its download or for the disk, and no longer counts.
const (
	unpacksAtOnce = 2
	unpackLease   = 20 * time.Second
)

// New returns the images in the stores of cfg.
func New(cfg Config) *Store {
	return &Store{
		db: cfg.DB, blobs: cfg.Blobs, snapshots: cfg.Snapshots, collector: cfg.Collector, defaults: cfg.Defaults, apply: cfg.Apply, log: cfg.Log,
		unpacking: gate.New("unpack a layer", unpacksAtOnce*goruntime.GOMAXPROCS(0), unpackLease),
	}
}

// Snapshotter returns name, or the namespace's default if it is empty, if it is a snapshotter that works.
func (s *Store) Snapshotter(ctx context.Context, namespace, name string) (string, error) {
	if name == "" {
		err := s.db.View(ctx, func(tx *metadata.Tx) error {
			d, err := s.defaults.In(tx, namespace)
			name = d.Snapshotter
			return err
		})
		if err != nil {
			return "", err
		}
	}
	_, err := s.snapshots.Driver(name)
	return name, err
}

// Info holds what a container needs of its image.
type Info struct {
	Name    string
	ChainID string // of its topmost layer: the parent of a container's snapshot
	User    string
}

// cacheKey is what decides what an image's documents say: they never change.
type cacheKey struct {
	target   digest.Digest
	platform string // as it was asked for, "" for this host's
}

// cache remembers what the documents of images say. It is bounded by forgetting everything now and
// then.
type cache struct {
	mu   sync.Mutex
	seen map[cacheKey]Info
}

const cacheSize = 1000

func (c *cache) get(k cacheKey) (Info, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, ok := c.seen[k]
	return i, ok
}

func (c *cache) put(k cacheKey, i Info) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil || len(c.seen) >= cacheSize {
		c.seen = make(map[cacheKey]Info)
	}
	c.seen[k] = i
}

// Unpacked returns an image of a namespace for a platform, "" for this host's, with its layers unpacked,
// unpacking what is missing. What it returned stays as long as hold does.
func (s *Store) Unpacked(ctx context.Context, hold *metadata.Hold, namespace, ref, platform, snapshotter string) (*Info, error) {
	match, err := parsePlatform(platform)
	if err != nil {
		return nil, err
	}
	img, err := s.Resolve(ctx, namespace, ref)
	if err != nil {
		return nil, err
	}
	hold.Content(img.Target.Digest.String())
	key := cacheKey{img.Target.Digest, platform}
	if info, ok := s.cache.get(key); ok {
		info.Name = img.Name
		if info.ChainID == "" {
			return &info, nil
		}
		there, err := (&layers{s, namespace, snapshotter, hold}).Exists(ctx, info.ChainID)
		if err != nil || there {
			return &info, err
		}
	}
	u, err := s.Unpack(ctx, hold, namespace, img.Target, UnpackOptions{Snapshotter: snapshotter, Platform: match})
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", img.Name, err)
	}
	info := Info{ChainID: u.Snapshot, User: u.Config.Config.User}
	s.cache.put(key, info)
	info.Name = img.Name
	return &info, nil
}

// UnpackOptions change how an image is unpacked.
type UnpackOptions struct {
	// Snapshotter is a name, and required.
	Snapshotter string
	Platform    platforms.MatchComparer // nil for this host's
	// From fetches the image, Watch is notified of layers that are begun and done; both may be nil.
	From  *image.Fetching
	Watch func(ocispec.Descriptor, image.State)
}

// Unpack creates the snapshots of an image, and has its configuration keep them. Concurrent calls for the same
// image and snapshotter run one after the other.
func (s *Store) Unpack(
	ctx context.Context, hold *metadata.Hold, namespace string, target ocispec.Descriptor, how UnpackOptions,
) (image.Unpacked, error) {
	if _, err := s.snapshots.Driver(how.Snapshotter); err != nil {
		return image.Unpacked{}, err
	}
	unlock, err := s.locks.Lock(ctx, "unpack\x00"+namespace+"\x00"+how.Snapshotter+"\x00"+target.Digest.String())
	if err != nil {
		return image.Unpacked{}, err
	}
	defer unlock()
	u, err := image.Unpack(ctx, s.blobs.In(namespace), &layers{s, namespace, how.Snapshotter, hold}, target, image.UnpackOptions{
		Platform: how.Platform, Gate: s.unpacking, From: how.From, Watch: how.Watch,
		ApplyOptions: s.apply,
	})
	if err == nil {
		err = s.keepSnapshot(ctx, namespace, how.Snapshotter, u.ConfigDigest, u.Snapshot)
	}
	return u, err
}

// Release ends the hold of a call. If the call failed with err after it made something, that is collected.
func (s *Store) Release(ctx context.Context, hold *metadata.Hold, made bool, err error) {
	hold.Release()
	if made && err != nil {
		s.CollectFailed(ctx)
	}
}

// NoteGarbage reports that content lost its last reference, as if an image were deleted: it brings on a collection.
func (s *Store) NoteGarbage() { s.collector.Changed(metadata.Changes{Deletions: 1}) }

// CollectFailed collects what a failed call made and nothing keeps. An error is logged. It runs even if ctx has ended.
func (s *Store) CollectFailed(ctx context.Context) {
	ctx, cancel := undo.Context(ctx)
	defer cancel()
	if _, err := s.collector.Collect(ctx); err != nil {
		s.log.Warn("cannot remove what a failed request left, left to the next collection", "error", err)
	}
}

// Record names an image that was made here, and describes it.
func (s *Store) Record(ctx context.Context, namespace string, img layout.Imported) (*cleatapi.Image, error) {
	recorded, err := s.RecordAll(ctx, namespace, []layout.Imported{img}, nil, Omission{})
	if err != nil {
		return nil, err
	}
	return s.describe(ctx, namespace, recorded[0])
}

// RecordAll names what is here and labels its content, all in one commit. Labels, where there are
// any, take the place of those that an image has.
func (s *Store) RecordAll(ctx context.Context, namespace string, list []layout.Imported, labels map[string]string, omit Omission) ([]metadata.Image, error) {
	recorded := make([]metadata.Image, len(list))
	targets := make([]ocispec.Descriptor, len(list))
	for i, img := range list {
		targets[i] = img.Target
	}
	refs, err := referencesOf(ctx, s.blobs.In(namespace), omit, targets...)
	if err != nil {
		return nil, err
	}
	paths := []string{"target"}
	if len(labels) > 0 {
		paths = append(paths, "labels")
	}
	var replaced bool
	err = s.db.Update(ctx, func(tx *metadata.Tx) error {
		replaced = false
		if err := refs.apply(tx, namespace); err != nil {
			return err
		}
		images := tx.Images(namespace)
		for i, img := range list {
			v := metadata.Image{Name: img.Name, Target: img.Target, Labels: labels}
			old, err := images.Get(img.Name)
			created := errors.Is(err, errdefs.ErrNotFound)
			switch {
			case err == nil:
				replaced = replaced || old.Target.Digest != img.Target.Digest
				recorded[i], err = images.Update(v, paths...)
			case created:
				recorded[i], err = images.Create(v)
			}
			if err == nil {
				err = announceRecord(tx, namespace, recorded[i], created)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if replaced { // as if the old ones were deleted
		s.NoteGarbage()
	}
	return recorded, nil
}

// announceRecord announces that a name was recorded, new or again.
func announceRecord(tx *metadata.Tx, namespace string, img metadata.Image, created bool) error {
	if created {
		return announce.Add(tx, namespace, "/images/create", &apievents.ImageCreate{Name: img.Name, Labels: img.Labels})
	}
	return announce.Add(tx, namespace, "/images/update", &apievents.ImageUpdate{Name: img.Name, Labels: img.Labels})
}

// ParsePlatform reads os/arch[/variant].
func ParsePlatform(text string) (ocispec.Platform, error) {
	p, err := platforms.Parse(text)
	if err != nil {
		return p, fmt.Errorf("platform %q: want os/arch[/variant]: %w: %w", text, err, errdefs.ErrInvalidArgument)
	}
	return p, nil
}

// parsePlatform returns a matcher for os/arch[/variant]; nil, this host's, for "".
func parsePlatform(text string) (platforms.MatchComparer, error) {
	if text == "" {
		return nil, nil // nil is the host's own, as package image takes it
	}
	p, err := ParsePlatform(text)
	if err != nil {
		return nil, err
	}
	return platforms.Only(p), nil
}
