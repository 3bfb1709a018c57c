// Package service holds the use cases of cleatd that touch two or more nouns. daemon/api decodes a
// request and calls here; here the stores, the snapshot drivers and the runtime are called in the
// order that keeps them in accord, with an undo stack until the one commit.
//
// Rules that all of it follows: directories are made before the record that speaks of them and
// removed after it; no transaction is open while a driver, a shim or a file is waited for; events
// are published when their change is committed and not before.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/image/registry"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/runtime"
	"github.com/cleatproject/cleat/snapshot"
)

// Config is what a Service works with; all fields are required.
type Config struct {
	DB      *metadata.DB
	Content *content.Store
	// Snapshotters are the drivers by name.
	Snapshotters map[string]snapshot.Driver
	// DefaultSnapshotter and DefaultRuntime are for requests and namespaces that name none.
	DefaultSnapshotter string
	DefaultRuntime     string
	Runtime            *runtime.Manager
	Events             *events.Log
	// Root is the daemon's root directory.
	Root string
	// CgroupParent is the cgroup below which containers that choose none are put.
	CgroupParent string
	// Registries is what images are pulled from and pushed to.
	Registries *registry.Client
	Log        *slog.Logger
}

// Service is the use cases. Its methods may be called concurrently.
type Service struct {
	Config
	locks   keyLocks
	images  imageCache
	exits   recentExits
	garbage garbage
	pulls   pullLeases
	// importing is held for reading while an import adds blobs that no image refers to yet, and
	// for writing while what images left is removed.
	importing sync.RWMutex
	// sweeping is held for reading while a blob is committed whose record is to follow, and
	// for writing while a blob is deleted whose last record went.
	sweeping sync.RWMutex

	ctx    context.Context //nolint:containedctx // the life of the Service's own goroutines
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New returns a Service; Close it.
func New(cfg Config) *Service {
	ctx, cancel := context.WithCancel(context.Background())
	return &Service{Config: cfg, ctx: ctx, cancel: cancel}
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

// defaults returns the snapshotter and runtime for a namespace that must exist.
func (s *Service) defaults(tx *metadata.Tx, namespace string) (snapshotter, runtimeName string, err error) {
	ns, err := tx.Namespaces().Get(namespace)
	if err != nil {
		return "", "", err
	}
	return first(ns.Labels[labelDefaultSnapshotter], s.DefaultSnapshotter),
		first(ns.Labels[labelDefaultRuntime], s.DefaultRuntime), nil
}

// first returns the first text that is not empty.
func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// driver returns a snapshot driver by name.
func (s *Service) driver(name string) (snapshot.Driver, error) {
	d, ok := s.Snapshotters[name]
	if !ok {
		return nil, fmt.Errorf("snapshotter %q: not available on this host: %w", name, errdefs.ErrNotFound)
	}
	return d, nil
}

// keyLocks serialises work on one name.
type keyLocks struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

// lock waits for the name and returns how to free it.
func (k *keyLocks) lock(ctx context.Context, name string) (func(), error) {
	for {
		k.mu.Lock()
		busy, ok := k.held[name]
		if !ok {
			if k.held == nil {
				k.held = make(map[string]chan struct{})
			}
			done := make(chan struct{})
			k.held[name] = done
			k.mu.Unlock()
			return func() {
				k.mu.Lock()
				defer k.mu.Unlock()
				delete(k.held, name)
				close(done)
			}, nil
		}
		k.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// undoLimit bounds the steps that take back what a failed request did.
const undoLimit = 30 * time.Second

// detached returns a context for clean-up that the request's end does not cancel.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
}

// ignore drops an error of a class that means the work is done.
func ignore(err, class error) error {
	if errors.Is(err, class) {
		return nil
	}
	return err
}
