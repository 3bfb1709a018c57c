// Package service holds the use cases of cleatd that touch two or more nouns. daemon/api decodes a
// request and calls here; here the stores, the snapshot drivers and the runtime are called in the
// order that keeps them in accord, with an undo stack until the one commit.
//
// Rules that all of it follows: directories are made before the record that speaks of them and
// removed after it; no transaction is open while a driver, a shim or a file is waited for; events
// are published when their change is committed and not before.
package service

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	goruntime "runtime"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/daemon/service/blobs"
	"github.com/cleatproject/cleat/daemon/service/gc"
	"github.com/cleatproject/cleat/daemon/service/snapshots"
	"github.com/cleatproject/cleat/daemon/service/subscribe"
	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/registry"
	"github.com/cleatproject/cleat/internal/gate"
	"github.com/cleatproject/cleat/internal/keylock"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount/activation"
	"github.com/cleatproject/cleat/runtime"
	"github.com/cleatproject/cleat/snapshot"
)

// Config is what a Service works with; all fields are required but those that say otherwise, and GC.
type Config struct {
	DB      *metadata.DB
	Content *content.Store
	// Snapshotters are the drivers by name.
	Snapshotters map[string]snapshot.Driver
	// Unavailable says of other drivers why they do not work on this host; it may be nil.
	Unavailable map[string]error
	// DefaultSnapshotter and DefaultRuntime are for requests and namespaces that name none.
	DefaultSnapshotter string
	DefaultRuntime     string
	Runtime            *runtime.Manager
	Events             *events.Log
	// Mounts performs what the kernel cannot mount by itself.
	Mounts *activation.Manager
	// Root is the daemon's root directory.
	Root string
	// CgroupParent is the cgroup below which containers that choose none are put.
	CgroupParent string
	// ProcessDefaults are for containers whose spec leaves them open.
	ProcessDefaults ProcessDefaults
	Log             *slog.Logger
	// Registries is what images are pulled from and pushed to.
	Registries *registry.Client
	// Schedule says when garbage is collected, Collecting how; the zero value of the latter is right.
	Schedule   gc.Schedule
	Collecting metadata.CollectOptions
	// Helpers decompress layers; it may be nil.
	Helpers []archive.Helper
	// Processors decode layers of other media types; it may be nil.
	Processors []archive.Processor
	// Limits bound the size of a layer when it is unpacked.
	Limits image.Limits
}

// removalsAtOnce is how many running containers are removed by force at the same time, for each processor.
const removalsAtOnce = 4

// unpacksAtOnce is how many layers are unpacked at the same time, for each processor. One that takes longer than
// unpackLease waits for its download or for the disk, and no longer counts.
const (
	unpacksAtOnce = 2
	unpackLease   = 20 * time.Second
)

// Service is the use cases. Its methods may be called concurrently.
type Service struct {
	Config
	locks  keylock.Locks[string]
	images imageCache
	exits  recentExits
	pulls  pullLeases
	// removals bounds how many running containers are removed by force at the same time.
	removals *gate.Gate
	// unpacking bounds the layers that all pulls and imports unpack at the same time.
	unpacking *gate.Gate
	blobs     *blobs.Store
	// Hub receives events and has the subscribers.
	Hub *subscribe.Hub
	// Snapshots are the snapshots of all namespaces.
	Snapshots *snapshots.Store
	// GC collects garbage.
	GC *gc.Collector

	ctx    context.Context //nolint:containedctx // the life of the Service's own goroutines
	cancel context.CancelFunc
	wg     sync.WaitGroup

	cgroups cgroups
}

// New returns a Service; Close it.
func New(cfg Config) *Service {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Service{Config: cfg, ctx: ctx, cancel: cancel, Hub: subscribe.New(cfg.Events, cfg.Runtime)}
	s.removals = gate.New("remove a container", removalsAtOnce*goruntime.GOMAXPROCS(0), killLimit)
	s.cgroups.gone = make(chan struct{}, 1)
	s.unpacking = gate.New("unpack a layer", unpacksAtOnce*goruntime.GOMAXPROCS(0), unpackLease)
	s.blobs = blobs.New(cfg.DB, cfg.Content)
	s.Snapshots = &snapshots.Store{DB: cfg.DB, Drivers: cfg.Snapshotters, Unavailable: cfg.Unavailable, Log: cfg.Log}
	s.GC = gc.New(gc.Config{
		DB: cfg.DB, Content: cfg.Content, Blobs: s.blobs, Snapshots: s.Snapshots, Log: cfg.Log,
		Schedule: cfg.Schedule, Options: cfg.Collecting, Prepare: s.labelOldImages, Release: s.releaseMounts,
	})
	return s
}

// Close ends the Service's goroutines and waits for them. Containers are left alone.
func (s *Service) Close() {
	s.cancel()
	s.wg.Wait()
	s.removeEmptyCgroups()
}

// Labels by which a namespace sets its own defaults, as published.
const (
	labelDefaultSnapshotter = "containerd.io/defaults/snapshotter"
	labelDefaultRuntime     = "containerd.io/defaults/runtime"
)

// defaults returns the snapshotter and runtime for a namespace, which need not exist yet.
func (s *Service) defaults(tx *metadata.Tx, namespace string) (snapshotter, runtimeName string, err error) {
	ns, err := tx.Namespaces().Get(namespace)
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return "", "", err
	}
	return cmp.Or(ns.Labels[labelDefaultSnapshotter], s.DefaultSnapshotter),
		cmp.Or(ns.Labels[labelDefaultRuntime], s.DefaultRuntime), nil
}

// defaultSnapshotter is the one for requests in the namespace that name none.
func (s *Service) defaultSnapshotter(ctx context.Context, namespace string) (name string, err error) {
	err = s.DB.View(ctx, func(tx *metadata.Tx) (err error) {
		name, _, err = s.defaults(tx, namespace)
		return err
	})
	return name, err
}

// Blobs returns the content store as a namespace sees it.
func (s *Service) Blobs(namespace string) *blobs.View { return s.blobs.In(namespace) }
