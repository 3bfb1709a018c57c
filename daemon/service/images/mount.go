package images

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/snapshot"
)

// Labels of a snapshot that was made for a client to mount: where, of which image, in which mount namespace and
// since which start of the machine. With the label of a root of the collection they keep it.
const (
	labelMount          = "cleat.io/mount"
	labelMountImage     = "cleat.io/mount.image"
	labelMountNamespace = "cleat.io/mount.namespace"
	labelMountBoot      = "cleat.io/mount.boot"
)

// mountSource begins the source of an overlay that is mounted for a client, by which it is known again.
const mountSource = "cleat:"

// Mount is called by daemon/api/native/images.go: a snapshot of an image, and how to mount it, which is the
// client's to do in its own mount namespace. The snapshot stays until Unmount.
func (s *Store) Mount(ctx context.Context, namespace string, req *cleatapi.MountImageRequest) (_ *cleatapi.MountImageResponse, err error) {
	if !filepath.IsAbs(req.Target) || filepath.Clean(req.Target) != req.Target {
		return nil, fmt.Errorf("mount image %s: target %q is not a clean absolute path: %w", req.Image, req.Target, errdefs.ErrInvalidArgument)
	}
	match, err := parsePlatform(req.Platform)
	if err != nil {
		return nil, err
	}
	unlock, err := s.locks.Lock(ctx, "mount\x00"+req.Target)
	if err != nil {
		return nil, err
	}
	defer unlock()
	hold := s.db.Hold(namespace)
	defer hold.Release()
	img, err := s.Resolve(ctx, namespace, req.Image)
	if err != nil {
		return nil, err
	}
	hold.Content(img.Target.Digest.String())
	if err := s.targetFree(ctx, namespace, req.Target, req.MountNamespace); err != nil {
		return nil, err
	}
	snapshotter, err := s.Snapshotter(ctx, namespace, req.Snapshotter)
	if err != nil {
		return nil, err
	}
	u, err := s.Unpack(ctx, hold, namespace, img.Target, UnpackOptions{Snapshotter: snapshotter, Platform: match})
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", img.Name, err)
	}
	rec := metadata.Snapshot{Key: "mount-" + rand.Text(), Parent: u.Snapshot, Kind: snapshot.KindView, Labels: map[string]string{
		metadata.LabelRoot: time.Now().UTC().Format(time.RFC3339), labelMount: req.Target, labelMountImage: img.Name,
		labelMountNamespace: req.MountNamespace, labelMountBoot: bootID(),
	}}
	if req.Writable {
		rec.Kind = snapshot.KindActive
	}
	mounts, err := s.snapshots.Prepare(ctx, namespace, snapshotter, rec)
	if err == nil && ctx.Err() != nil { // the client has left
		err = errors.Join(ctx.Err(), s.snapshots.Remove(context.WithoutCancel(ctx), namespace, snapshotter, rec.Key))
	}
	if err != nil {
		return nil, fmt.Errorf("mount image %s: %w", img.Name, err)
	}
	return &cleatapi.MountImageResponse{Mounts: mountSteps(mounts, rec.Key), Key: rec.Key}, nil
}

// mountSteps are mounts on the wire, those of overlays with a name by which they are known again.
func mountSteps(mounts []mount.Mount, key string) []*cleatapi.ImageMountStep {
	out := make([]*cleatapi.ImageMountStep, len(mounts))
	for i, m := range mounts {
		if _, _, ok := mount.OverlayDirs(m); ok {
			m.Source = mountSource + key
		}
		out[i] = &cleatapi.ImageMountStep{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options}
	}
	return out
}

// targetFree refuses a directory that an image is mounted on already.
func (s *Store) targetFree(ctx context.Context, namespace, target, mountNamespace string) error {
	list, err := s.mounted(ctx, namespace)
	if err != nil {
		return err
	}
	for _, m := range list {
		if m.rec.Labels[labelMount] == target && m.rec.Labels[labelMountNamespace] == mountNamespace {
			return fmt.Errorf("mount image: on %s image %s is mounted: %w", target, m.rec.Labels[labelMountImage], errdefs.ErrAlreadyExists)
		}
	}
	return nil
}

// mountRecord is a snapshot that was made for a client to mount.
type mountRecord struct {
	snapshotter string
	rec         metadata.Snapshot
}

func (s *Store) mounted(ctx context.Context, namespace string) (out []mountRecord, err error) {
	err = s.db.View(ctx, func(tx *metadata.Tx) error {
		out = nil
		for _, name := range tx.Snapshotters(namespace) {
			list, err := tx.Snapshots(namespace, name).List(`labels."` + labelMount + `"`)
			if err != nil {
				return err
			}
			for _, rec := range list {
				out = append(out, mountRecord{name, rec})
			}
		}
		return nil
	})
	return out, err
}

// Mounts lists the snapshots that Mount made.
func (s *Store) Mounts(ctx context.Context, namespace string) ([]*cleatapi.ImageMount, error) {
	list, err := s.mounted(ctx, namespace)
	if err != nil {
		return nil, err
	}
	out := make([]*cleatapi.ImageMount, len(list))
	for i, m := range list {
		out[i] = &cleatapi.ImageMount{
			Target: m.rec.Labels[labelMount], Image: m.rec.Labels[labelMountImage], Snapshotter: m.snapshotter, Key: m.rec.Key,
			Writable: m.rec.Kind == snapshot.KindActive, CreatedAt: types.FromTime(m.rec.CreatedAt), MountNamespace: m.rec.Labels[labelMountNamespace],
		}
		if mounts, err := s.snapshots.Mounts(ctx, namespace, m.snapshotter, m.rec.Key); err == nil { // else it is only listed
			out[i].Mounts = mountSteps(mounts, m.rec.Key)
		}
	}
	return out, nil
}

// Unmount releases the snapshot that was made for a directory, which the client has unmounted. The next
// collection removes it, with all that was written to it, or this call does.
func (s *Store) Unmount(ctx context.Context, namespace string, req *cleatapi.UnmountImageRequest) error {
	unlock, err := s.locks.Lock(ctx, "mount\x00"+req.Target)
	if err != nil {
		return err
	}
	defer unlock()
	list, err := s.mounted(ctx, namespace)
	if err != nil {
		return err
	}
	found := false
	for _, m := range list {
		if m.rec.Labels[labelMount] != req.Target || req.Key != "" && m.rec.Key != req.Key {
			continue
		}
		found = true
		if err := s.dropMount(ctx, namespace, m, req.Remove); err != nil {
			return fmt.Errorf("unmount %s: %w", req.Target, err)
		}
	}
	if !found {
		return fmt.Errorf("unmount %s: no image is mounted there: %w", req.Target, errdefs.ErrNotFound)
	}
	return nil
}

func (s *Store) dropMount(ctx context.Context, namespace string, m mountRecord, remove bool) error {
	if remove {
		return s.snapshots.Remove(ctx, namespace, m.snapshotter, m.rec.Key)
	}
	err := s.db.Update(ctx, func(tx *metadata.Tx) error {
		_, err := tx.Snapshots(namespace, m.snapshotter).Update(metadata.Snapshot{Key: m.rec.Key},
			"labels."+metadata.LabelRoot, "labels."+labelMount)
		return err
	})
	if err == nil { // as if it were deleted
		s.NoteGarbage()
	}
	return err
}
