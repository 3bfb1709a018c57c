// Package snapshots holds the use cases of snapshots: directories of a driver with their records, mounts
// as the labels of a snapshot ask (owners of a user namespace, volatile), and limits of storage.
package snapshots

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/snapshot"
)

// Store is the snapshots of all namespaces: directories of drivers, and the records of them.
// Its methods may be called concurrently.
type Store struct {
	DB *metadata.DB
	// Drivers has the drivers by name, and Unavailable why others do not work on this host.
	Drivers     map[string]snapshot.Driver
	Unavailable map[string]error
	Log         *slog.Logger
	// limiting is held while the limit of a snapshot and its label change.
	limiting sync.Mutex
}

// Driver returns a snapshot driver by name.
func (s *Store) Driver(name string) (snapshot.Driver, error) {
	if d, ok := s.Drivers[name]; ok {
		return d, nil
	}
	if why := s.Unavailable[name]; why != nil {
		return nil, reason.With(fmt.Errorf("snapshotter %s: %w", name, why), reason.SnapshotterUnavailable)
	}
	return nil, fmt.Errorf("snapshotter %q: no such snapshotter; available: %s: %w",
		name, strings.Join(slices.Sorted(maps.Keys(s.Drivers)), ", "), reason.SnapshotterUnavailable)
}

// Known returns an error for a name that no driver has, working or not.
func (s *Store) Known(name string) error {
	if _, err := s.Driver(name); err != nil && s.Unavailable[name] == nil {
		return err
	}
	return nil
}
