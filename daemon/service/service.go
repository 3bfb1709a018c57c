// Package service assembles the use cases of cleatd, which touch two or more nouns; each noun is a package below.
// daemon/api decodes a request and calls a use case, which calls the stores, the snapshot drivers and the runtime in
// the order that keeps them consistent, with an undo stack until the one commit. The packages' floors:
// announce < blobs, snapshots < namespaces, activations < images < transfer; containers > images; restart >
// containers; gc > blobs, snapshots.
//
// Rules that all of it follows: directories are made before the record that speaks of them and
// removed after it; no transaction is open while a driver, a shim or a file is waited for; events
// are published when their change is committed and not before.
package service

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/daemon/service/activations"
	"github.com/cleatproject/cleat/daemon/service/blobs"
	"github.com/cleatproject/cleat/daemon/service/containers"
	"github.com/cleatproject/cleat/daemon/service/gc"
	"github.com/cleatproject/cleat/daemon/service/images"
	"github.com/cleatproject/cleat/daemon/service/namespaces"
	"github.com/cleatproject/cleat/daemon/service/snapshots"
	"github.com/cleatproject/cleat/daemon/service/subscribe"
	"github.com/cleatproject/cleat/daemon/service/transfer"
	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/registry"
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
	ProcessDefaults containers.ProcessDefaults
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

// Service holds the use cases, one field for each noun; they share the stores of the Config.
type Service struct {
	Namespaces  *namespaces.Store
	Cgroups     *namespaces.Cgroups
	Blobs       *blobs.Store
	Snapshots   *snapshots.Store
	Activations *activations.Store
	Images      *images.Store
	Transfers   *transfer.Service
	Containers  *containers.Service
	Sandboxes   *containers.Sandboxes
	GC          *gc.Collector
	// Hub receives events and has the subscribers.
	Hub *subscribe.Hub

	log    *slog.Logger
	ctx    context.Context //nolint:containedctx // the life of the Service's own goroutines
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New assembles the use cases, lower floors first. Close them.
func New(cfg Config) *Service {
	s := &Service{log: cfg.Log, Hub: subscribe.New(cfg.Events, cfg.Runtime)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	locks := new(keylock.Locks[string]) // of containers
	defaults := namespaces.Defaults{Snapshotter: cfg.DefaultSnapshotter, Runtime: cfg.DefaultRuntime}
	s.Blobs = blobs.New(cfg.DB, cfg.Content)
	s.Snapshots = &snapshots.Store{DB: cfg.DB, Drivers: cfg.Snapshotters, Unavailable: cfg.Unavailable, Log: cfg.Log}
	s.Cgroups = namespaces.NewCgroups(cfg.CgroupParent, cfg.Runtime)
	s.Namespaces = namespaces.New(cfg.DB, s.Blobs, cfg.Runtime, s.Cgroups, cfg.Log)
	s.Activations = activations.New(cfg.Mounts, cfg.DB, cfg.Runtime, locks)
	s.GC = gc.New(gc.Config{
		DB: cfg.DB, Content: cfg.Content, Blobs: s.Blobs, Snapshots: s.Snapshots, Log: cfg.Log,
		Schedule: cfg.Schedule, Options: cfg.Collecting, Release: s.Activations.Release,
		Prepare: func(ctx context.Context) error { return images.LabelOld(ctx, cfg.DB, s.Blobs, s.Snapshots) },
	})
	s.Images = images.New(images.Config{
		DB: cfg.DB, Blobs: s.Blobs, Snapshots: s.Snapshots, Collector: s.GC, Defaults: defaults, Log: cfg.Log,
		Apply: image.ApplyOptions{Helpers: cfg.Helpers, Processors: cfg.Processors, Limits: cfg.Limits},
	})
	s.Transfers = transfer.New(cfg.DB, s.Blobs, s.Images, cfg.Registries)
	s.Containers = containers.New(containers.Config{
		DB: cfg.DB, Tasks: cfg.Runtime, Images: s.Images, Snapshots: s.Snapshots, Blobs: s.Blobs, Activations: s.Activations,
		Cgroups: s.Cgroups, Events: cfg.Events, Defaults: defaults, Process: cfg.ProcessDefaults,
		Logs: filepath.Join(cfg.Root, "logs"), Locks: locks, Log: cfg.Log,
	})
	s.Sandboxes = containers.NewSandboxes(cfg.DB, cfg.Runtime, defaults)
	return s
}

// Close ends the Service's goroutines and waits for them. Containers are left alone.
func (s *Service) Close() {
	s.cancel()
	s.wg.Wait()
	s.Containers.Close()
	s.Cgroups.RemoveEmpty()
}

// Tidy removes what crashes left of logs, cgroups, imports, unpacked layers and mounted images. It is called before
// the first request.
func (s *Service) Tidy(ctx context.Context) error {
	s.Cgroups.RemoveEmpty()
	return errors.Join(s.Containers.CleanLogs(ctx), s.Images.CleanUnpacks(ctx), s.Blobs.CleanImports(ctx), s.Images.CleanMounts(ctx))
}

// Begin resumes what an earlier daemon left, in the background: containers made by Run, and
// directories of snapshots that have no record. From now on garbage is collected.
func (s *Service) Begin() {
	s.wg.Go(func() { s.GC.Run(s.ctx) })
	s.wg.Go(func() { s.Cgroups.Tend(s.ctx) })
	s.wg.Go(func() {
		for _, step := range s.recoveries() {
			if err := step.run(s.ctx); err != nil && s.ctx.Err() == nil {
				s.log.Error("cannot "+step.what, "error", err)
			}
		}
	})
}

// recovery is a step of taking up what an earlier daemon left.
type recovery struct {
	what string
	run  func(context.Context) error
}

// recoveries returns the steps in the order of their urgency: what keeps users waiting comes first, what only frees
// space last. None depends on another's success.
func (s *Service) recoveries() []recovery {
	return []recovery{
		{"resume frozen containers", s.Containers.ThawLeft},
		{"resume containers", s.Containers.Resume},
		{"restore storage limits", s.Snapshots.RestoreLimits},
		{"clean up snapshots", s.Snapshots.Clean},
	}
}
