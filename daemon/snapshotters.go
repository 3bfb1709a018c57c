package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/btrfs"
	"github.com/cleatproject/cleat/snapshot/erofs"
	"github.com/cleatproject/cleat/snapshot/native"
	"github.com/cleatproject/cleat/snapshot/overlay"
	"github.com/cleatproject/cleat/snapshot/proxy"
)

// snapshotters are the drivers of this host by name, and why others do not work on it.
type snapshotters struct {
	working map[string]snapshot.Driver
	failed  map[string]error
}

// ownDrivers are cleat's own drivers.
func ownDrivers() map[string]func(root string) (snapshot.Driver, error) {
	return map[string]func(root string) (snapshot.Driver, error){
		overlay.Name: func(root string) (snapshot.Driver, error) { return overlay.Open(root) },
		btrfs.Name:   func(root string) (snapshot.Driver, error) { return btrfs.Open(root) },
		native.Name:  func(root string) (snapshot.Driver, error) { return native.Open(root) },
		erofs.Name:   func(root string) (snapshot.Driver, error) { return erofs.Open(root) },
	}
}

// ownSnapshotters are the names that mean something by themselves.
func ownSnapshotters() []string { return slices.Sorted(maps.Keys(ownDrivers())) }

// openSnapshotters opens every driver, all at once; uuid tells this daemon's snapshots from others'
// where other processes keep them. One that does not work on this host is an
// ordinary thing: only those who ask for it are told why.
func openSnapshotters(root, uuid string, proxies map[string]ProxyPlugin, log *slog.Logger, closing *undo.Stack) snapshotters {
	s := snapshotters{working: make(map[string]snapshot.Driver), failed: map[string]error{
		"aufs": fmt.Errorf("aufs has left the Linux kernel: %w", errdefs.ErrFailedPrecondition),
	}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	drivers := ownDrivers()
	for name, p := range proxies {
		drivers[name] = func(string) (snapshot.Driver, error) {
			return proxy.Open(proxy.Config{
				Name: name, Address: p.Address, Snapshotter: p.Snapshotter, Namespace: p.Namespace, Prefix: "cleat-" + uuid + "-",
			})
		}
	}
	for name, open := range drivers {
		wg.Go(func() {
			d, err := open(filepath.Join(root, "snapshots", name))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				s.working[name] = d
				closing.Push("close snapshotter "+name, d.Close)
			case errors.Is(err, errdefs.ErrFailedPrecondition):
				log.Debug("snapshotter does not work on this host", "snapshotter", name, "error", err)
				s.failed[name] = err
			default:
				log.Warn("cannot open a snapshotter", "snapshotter", name, "error", err)
				s.failed[name] = err
			}
		})
	}
	wg.Wait()
	return s
}
