package doctor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"

	"github.com/cleatproject/cleat/daemon"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/snapshot"
)

// drivers reports which snapshotters work on this host, and why others do not. Only the default one
// that does not work is a finding. They are tried in a directory that is removed afterwards.
func (d *doctor) drivers(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp(d.cfg.Root, ".doctor-")
	if err != nil {
		return fmt.Errorf("try snapshotters: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var closing undo.Stack
	defer func() { err = errors.Join(err, closing.Run()) }()
	s := daemon.OpenSnapshotters(dir, "", nil, slog.New(slog.DiscardHandler), &closing)
	for _, name := range slices.Sorted(maps.Keys(s.Working)) {
		d.fine("snapshotter " + name + " works" + limits(ctx, s.Working[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Failed)) {
		if name == d.cfg.Snapshotter {
			d.finding(fmt.Sprintf("the snapshotter %s does not work: %v", name, s.Failed[name]),
				"containers cannot be made of images, unless they ask for another one", "see the reason, or set snapshotter in the configuration to one that works")
			continue
		}
		d.printf("   note: snapshotter %s does not work on this host: %v\n", name, s.Failed[name])
	}
	return nil
}

// limits reports whether a driver enforces limits, by a snapshot with one.
func limits(ctx context.Context, d snapshot.Driver) string {
	l, ok := d.(snapshot.Limited)
	if !ok {
		return ", without limits of storage"
	}
	if err := l.PrepareLimited(ctx, 1, nil, snapshot.MinLimit); err != nil {
		return fmt.Sprintf(", without limits of storage: %v", err)
	}
	if err := l.Remove(ctx, 1); err != nil {
		return fmt.Sprintf(", and did not remove a limited one: %v", err)
	}
	return ", with limits of storage"
}
