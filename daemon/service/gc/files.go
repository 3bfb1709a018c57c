package gc

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// removeFiles removes what is behind deleted records: the directories of snapshots, and blobs that
// no namespace sees any more. It continues after failures, but not when ctx has ended: then the files
// are left to the next start.
func (c *Collector) removeFiles(ctx context.Context, removed []metadata.Removed, out *tally) error {
	var errs error
	for _, r := range removed {
		bytes := int64(0)
		if ctx.Err() == nil {
			var err error
			bytes, err = c.removeFile(ctx, r)
			errs = errors.Join(errs, err)
		}
		out.add(freed(r, bytes))
	}
	return errors.Join(errs, ctx.Err())
}

// removeFile removes what is behind one record and returns how much that was.
func (c *Collector) removeFile(ctx context.Context, r metadata.Removed) (int64, error) {
	switch r.Kind {
	case metadata.KindSnapshot:
		return c.removeCollected(ctx, r)
	case metadata.KindContent:
		gone, err := c.Blobs.DeleteUnrecorded(ctx, digest.Digest(r.Name))
		if !gone {
			return 0, err
		}
		return r.Size, err
	default:
		return 0, nil // only a record
	}
}

// removeCollected removes the directory of a snapshot whose record is gone.
func (c *Collector) removeCollected(ctx context.Context, r metadata.Removed) (int64, error) {
	d, err := c.Snapshots.Driver(r.Set)
	if err != nil {
		return 0, nil //nolint:nilerr // its directory is cleaned up where the driver works again
	}
	bytes := r.Size
	if bytes == 0 { // it was never committed, and so not measured
		u, err := d.Usage(ctx, r.SnapshotID)
		if err := undo.Ignore(err, errdefs.ErrNotFound); err != nil {
			return 0, fmt.Errorf("remove snapshot %s: %w", r.Name, err)
		}
		bytes = u.Size
	}
	if err := d.Remove(ctx, r.SnapshotID); err != nil {
		return 0, fmt.Errorf("remove snapshot %s: %w", r.Name, err)
	}
	return bytes, nil
}

// removeUnrecorded removes what crashes have left on disk between a step there and the record of
// it: blobs and directories without a record.
func (c *Collector) removeUnrecorded(ctx context.Context, out *tally) error {
	var orphans []content.Info
	err := c.Content.Walk(ctx, func(i content.Info) error {
		n, err := c.Blobs.Users(ctx, i.Digest)
		if err == nil && n == 0 {
			orphans = append(orphans, i)
		}
		return err
	})
	for _, o := range orphans {
		gone, rerr := c.Blobs.DeleteUnrecorded(ctx, o.Digest)
		err = errors.Join(err, rerr)
		if gone {
			out.add(&cleatapi.Freed{Kind: "file", Name: o.Digest.String(), Bytes: o.Size})
		}
	}
	for name, d := range c.Snapshots.Drivers {
		gone, rerr := c.Snapshots.RemoveUnrecorded(ctx, d)
		err = errors.Join(err, rerr)
		for _, id := range gone {
			out.add(&cleatapi.Freed{Kind: "file", Snapshotter: name, Name: strconv.FormatUint(id, 10)})
		}
	}
	return err
}

// kindIngest is the kind of an ingest in listings of what was removed.
const kindIngest = "ingest"

// ingestExpiry is how long an ingest is kept that has no writer and no lease.
const ingestExpiry = 24 * time.Hour

// expireIngests drops ingests that were left alone for long.
func (c *Collector) expireIngests(ctx context.Context, now time.Time, out *tally) error {
	list, err := c.Content.ListStatuses(ctx, "")
	if err != nil {
		return err
	}
	leased := make(map[string]map[string]bool)
	var errs error
	for _, st := range list {
		last := st.StartedAt
		if st.UpdatedAt.After(last) {
			last = st.UpdatedAt
		}
		ns, ref, _ := strings.Cut(st.Ref, "/")
		if last.Add(ingestExpiry).After(now) {
			continue
		}
		if leased[ns] == nil {
			err := c.DB.View(ctx, func(tx *metadata.Tx) (err error) {
				leased[ns], err = tx.Leased(ns, metadata.ResourceIngests)
				return err
			})
			if err != nil {
				return errors.Join(errs, err)
			}
		}
		if leased[ns][ref] {
			continue
		}
		err := c.Content.Abort(ctx, st.Ref)
		if errors.Is(err, errdefs.ErrUnavailable) || errors.Is(err, errdefs.ErrNotFound) {
			continue // it has a writer, or ended by itself
		}
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		out.add(&cleatapi.Freed{Kind: kindIngest, Namespace: ns, Name: ref, Bytes: st.Offset})
	}
	return errs
}
