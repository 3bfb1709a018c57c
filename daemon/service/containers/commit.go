package containers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/daemon/service/images"
	"github.com/cleatproject/cleat/daemon/service/snapshots"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/edit"
	"github.com/cleatproject/cleat/image/layout"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/snapshot"
)

// commitPlan is what a Commit was asked for, once it was checked.
type commitPlan struct {
	name        string
	changes     []edit.Change
	compression archive.Compression
	level       int
	created     time.Time
	latest      time.Time // of a file in the layer; zero is any
}

// Commit is called by daemon/api/native/images.go: an image of what a container changed. Its snapshot is
// compared to the one below it (image/diff.go), while its processes are frozen, and the layer put on top of
// those of its image (image/edit/commit.go), which are shared. What a failed one made is removed.
func (s *Service) Commit(ctx context.Context, namespace string, req *cleatapi.CommitRequest) (_ *cleatapi.Image, err error) {
	p, err := planCommit(req)
	if err != nil {
		return nil, err
	}
	unlock, err := s.locks.Lock(ctx, namespace+"/"+req.Container)
	if err != nil {
		return nil, err
	}
	defer unlock()
	hold := s.db.Hold(namespace)
	began := false
	defer func() { s.images.Release(ctx, hold, began, err) }()
	c, rec, err := s.commitSource(ctx, namespace, req.Container)
	if err != nil {
		return nil, err
	}
	base, err := s.commitBase(ctx, hold, namespace, c, rec)
	if err != nil {
		return nil, err
	}
	began = true
	layer, err := s.commitLayer(ctx, hold, namespace, c, rec, p, req.NoPause)
	if err != nil {
		return nil, err
	}
	target, err := edit.AddLayer(ctx, s.images.Content(namespace, hold), base, layer.Descriptor, layer.Plain, edit.LayerOptions{
		Author: req.Author, Comment: req.Message, CreatedBy: commandOf(c), Created: p.created, Changes: p.changes,
	})
	if err != nil {
		return nil, fmt.Errorf("commit container %s: %w", c.ID, err)
	}
	out, err := s.images.Record(ctx, namespace, layout.Imported{Name: p.name, Target: target})
	if err != nil {
		return nil, fmt.Errorf("commit container %s: %w", c.ID, err)
	}
	return out, nil
}

// planCommit checks the request itself.
func planCommit(req *cleatapi.CommitRequest) (*commitPlan, error) {
	name, err := images.NewName(req.Image)
	if err != nil {
		return nil, fmt.Errorf("commit container %s: %w", req.Container, err)
	}
	p := &commitPlan{name: name, level: int(req.CompressionLevel), created: time.Now()}
	if p.compression, err = images.ParseCompression(cmp.Or(req.Compression, string(archive.Gzip)), p.level); err != nil {
		return nil, fmt.Errorf("commit container %s: %w", req.Container, err)
	}
	if req.CreatedAt != nil {
		p.created = req.CreatedAt.Time()
		p.latest = p.created
	}
	for _, text := range req.Changes {
		change, err := edit.ParseChange(text)
		if err != nil {
			return nil, fmt.Errorf("commit container %s: %w", req.Container, err)
		}
		p.changes = append(p.changes, change)
	}
	return p, nil
}

// commitSource loads a container and its snapshot.
func (s *Service) commitSource(ctx context.Context, namespace, id string) (c metadata.Container, rec metadata.Snapshot, err error) {
	err = s.db.View(ctx, func(tx *metadata.Tx) (err error) {
		if c, err = tx.Containers(namespace).Get(id); err != nil {
			return err
		}
		if c.SnapshotKey == "" {
			return fmt.Errorf("commit container %s: its root is a directory of the host, not a snapshot of an image: %w", id, errdefs.ErrFailedPrecondition)
		}
		rec, err = tx.Snapshots(namespace, c.Snapshotter).Stat(c.SnapshotKey)
		return err
	})
	return c, rec, err
}

// commitBase finds the image that a container's snapshot was made of: under the container's own name for
// it or, where that means another by now, any.
func (s *Service) commitBase(ctx context.Context, hold *metadata.Hold, namespace string, c metadata.Container, rec metadata.Snapshot) (*edit.Base, error) {
	list, err := s.images.Records(ctx, namespace)
	if err != nil {
		return nil, err
	}
	for i, img := range list {
		if img.Name == c.Image {
			list[0], list[i] = list[i], list[0]
		}
	}
	blobs := s.blobs.In(namespace)
	for _, img := range list {
		hold.Content(img.Target.Digest.String())
		base, err := edit.FindBase(ctx, blobs, img.Target, rec.Parent)
		if err == nil {
			return base, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if img.Name == c.Image && !errdefs.IsNotFound(err) {
			return nil, fmt.Errorf("commit container %s: image %s: %w", c.ID, img.Name, err)
		}
	}
	return nil, reason.With(fmt.Errorf("commit container %s: the image that it was made of, %s, is incomplete: %w",
		c.ID, cmp.Or(c.Image, "which has no name"), errdefs.ErrFailedPrecondition), reason.ImageIncomplete)
}

// commandOf is what a container was made to run, for its image's history.
func commandOf(c metadata.Container) string {
	if r, err := record(c); err == nil && r != nil && len(r.Command) > 0 {
		return strings.Join(r.Command, " ")
	}
	if c.Spec != nil {
		if spec, err := parseSpec(c.Spec.Value); err == nil {
			return strings.Join(spec.args(), " ")
		}
	}
	return ""
}

// commitLayer writes what a container changed as a layer.
func (s *Service) commitLayer(
	ctx context.Context, hold *metadata.Hold, namespace string, c metadata.Container, rec metadata.Snapshot, p *commitPlan, noPause bool,
) (layer images.Layer, err error) {
	var u undo.Stack
	defer func() { err = errors.Join(err, u.Run()) }()
	right, err := s.snapshots.Mounts(ctx, namespace, c.Snapshotter, c.SnapshotKey)
	if err != nil {
		return layer, err
	}
	key := edit.MakeRef()
	hold.Snapshot(c.Snapshotter, key)
	left, err := s.snapshots.Prepare(ctx, namespace, c.Snapshotter, metadata.Snapshot{
		Key: key, Parent: rec.Parent, Kind: snapshot.KindView, Labels: map[string]string{images.LabelUnpacking: "true"},
	})
	if err != nil {
		return layer, err
	}
	u.Push("remove view", func() error {
		ctx, cancel := undo.Context(ctx)
		defer cancel()
		return s.snapshots.Remove(ctx, namespace, c.Snapshotter, key)
	})
	if !noPause {
		if err := s.freeze(ctx, &u, namespace, c.ID); err != nil {
			return layer, fmt.Errorf("commit container %s: %w", c.ID, err)
		}
	}
	owners, err := snapshots.OwnersOf(rec.Labels)
	if err != nil {
		return layer, fmt.Errorf("commit container %s: %w", c.ID, err)
	}
	if owners.MapsWhatItReads(left, right) {
		return layer, fmt.Errorf("commit container %s: the snapshotter %s cannot distinguish what its user namespace changed: %w", c.ID, c.Snapshotter, errdefs.ErrNotImplemented)
	}
	return s.images.DiffHeld(ctx, hold, namespace, images.DiffRequest{
		Owners: owners, Left: left, Right: right, MediaType: image.LayerType(p.compression), Level: p.level, Ref: edit.MakeRef(), Latest: p.latest,
		Live: noPause,
	})
}
