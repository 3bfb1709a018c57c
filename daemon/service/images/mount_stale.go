package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount"
)

// mountGrace is how long a client may take from the daemon's answer to its mount.
const mountGrace = time.Minute

// bootID names this start of the machine; "" if the kernel does not report it.
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// StaleMount says why a snapshot that was made for a client to mount is mounted no more; "" for one that may
// be, and for other snapshots.
func StaleMount(rec metadata.Snapshot, now time.Time) string {
	target, ns := rec.Labels[labelMount], rec.Labels[labelMountNamespace]
	switch {
	case target == "":
		return ""
	case rec.Labels[labelMountBoot] != bootID():
		return "the machine was started anew since"
	case now.Sub(rec.CreatedAt) < mountGrace:
		return ""
	case ns != "" && !mountNamespaceLives("/proc", ns):
		return "its mount namespace is gone"
	}
	if own, err := os.Readlink("/proc/self/ns/mnt"); err != nil || own != ns {
		return "" // it cannot be seen from here
	}
	if points, err := mount.Under(target); err != nil || slices.Contains(points, target) {
		return ""
	}
	return "nothing is mounted on " + target
}

// MountTarget is the directory that a snapshot was made to be mounted on; "" for other snapshots.
func MountTarget(rec metadata.Snapshot) string { return rec.Labels[labelMount] }

// mountNamespaceLives reports whether a process is in a mount namespace. A process that cannot be read counts.
func mountNamespaceLives(proc, ns string) bool {
	links, err := filepath.Glob(proc + "/[0-9]*/ns/mnt")
	if err != nil || len(links) == 0 {
		return true
	}
	for _, l := range links {
		at, err := os.Readlink(l)
		if at == ns || err != nil && !errors.Is(err, os.ErrNotExist) {
			return true
		}
	}
	return false
}

// CleanMounts removes snapshots that were made for clients to mount and are mounted no more: the machine
// or the client went away. Before the first request.
func (s *Store) CleanMounts(ctx context.Context) error {
	namespaces, err := s.db.NamespaceNames(ctx)
	if err != nil {
		return err
	}
	var errs error
	for _, ns := range namespaces {
		list, err := s.mounted(ctx, ns)
		errs = errors.Join(errs, err)
		for _, m := range list {
			why := StaleMount(m.rec, time.Now())
			if why == "" || s.snapshots.Drivers[m.snapshotter] == nil {
				continue
			}
			s.log.Info("removing the snapshot of an image that is mounted no more", "target", m.rec.Labels[labelMount], "key", m.rec.Key, "namespace", ns, "why", why)
			if err := s.snapshots.Remove(ctx, ns, m.snapshotter, m.rec.Key); err != nil {
				errs = errors.Join(errs, fmt.Errorf("remove snapshot of a mount: %w", err))
			}
		}
	}
	return errs
}
