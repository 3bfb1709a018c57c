package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/daemon/config"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/btrfs"
	"github.com/cleatproject/cleat/snapshot/erofs"
	"github.com/cleatproject/cleat/snapshot/native"
	"github.com/cleatproject/cleat/snapshot/overlay"
	"github.com/cleatproject/cleat/snapshot/proxy"
)

// Snapshotters holds the drivers of this host by name, and the reasons why others do not work on
// it.
type Snapshotters struct {
	Working map[string]snapshot.Driver
	Failed  map[string]error
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

// OpenSnapshotters opens every driver in parallel. uuid distinguishes this daemon's snapshots from
// others' if another process keeps them. A driver that does not work on this host is not an error:
// the reason is returned to requests for it.
func OpenSnapshotters(root, uuid string, proxies map[string]config.ProxyPlugin, log *slog.Logger, closing *undo.Stack) Snapshotters {
	s := Snapshotters{Working: make(map[string]snapshot.Driver), Failed: map[string]error{
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
				s.Working[name] = d
				closing.Push("close snapshotter "+name, d.Close)
			case errors.Is(err, errdefs.ErrFailedPrecondition):
				log.Debug("snapshotter does not work on this host", "snapshotter", name, "error", err)
				s.Failed[name] = err
			default:
				log.Warn("cannot open a snapshotter", "snapshotter", name, "error", err)
				s.Failed[name] = err
			}
		})
	}
	wg.Wait()
	return s
}
