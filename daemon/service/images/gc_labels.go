package images

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/daemon/service/blobs"
	"github.com/cleatproject/cleat/daemon/service/snapshots"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/snapshot"
)

// references are the labels by which the documents of images keep what they refer to, as published:
// gc.ref.content.m.N on an index, .config and .l.N on a manifest, gc.ref.snapshot.NAME on a
// configuration.
type references map[digest.Digest]map[string]string

// maxNesting bounds indexes within indexes, as package image does.
const maxNesting = 8

// Omission is what an image does not keep of what its documents refer to. The zero value omits
// nothing.
type Omission struct {
	// Manifests are those, and the images made only of those, that are not kept.
	Manifests map[digest.Digest]bool
	// Documents keeps these manifests and their configurations, without the layers.
	Documents bool
}

// referencesOf reads the documents of images that are present. A document that is not valid refers
// to nothing.
func referencesOf(ctx context.Context, blobs *blobs.View, omit Omission, targets ...ocispec.Descriptor) (references, error) {
	r := make(references)
	for _, t := range targets {
		if err := r.add(ctx, blobs, omit, t, 0); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r references) add(ctx context.Context, blobs *blobs.View, omit Omission, desc ocispec.Descriptor, depth int) error {
	if r[desc.Digest] != nil || depth > maxNesting || !image.IsIndex(desc.MediaType) && !image.IsManifest(desc.MediaType) {
		return nil
	}
	children, err := image.Children(ctx, blobs, desc)
	if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrInvalidArgument) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read references of %s: %w", desc.Digest, err)
	}
	labels := make(map[string]string, len(children))
	r[desc.Digest] = labels
	for i, c := range children {
		switch {
		case omit.Manifests[c.Digest] && !omit.Documents:
			continue
		case omit.Manifests[desc.Digest] && image.IsManifest(desc.MediaType) && i > 0:
			continue // a layer
		}
		key := fmt.Sprintf("%s.m.%d", metadata.LabelRefContent, i)
		switch {
		case image.IsIndex(desc.MediaType):
		case i == 0:
			key = metadata.LabelRefContent + ".config"
		default:
			key = fmt.Sprintf("%s.l.%d", metadata.LabelRefContent, i-1)
		}
		labels[key] = c.Digest.String()
		if err := r.add(ctx, blobs, omit, c, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// apply sets the labels where they are not set. Blobs that the namespace does not see are left out.
func (r references) apply(tx *metadata.Tx, namespace string) error {
	c := tx.Content(namespace)
	for d, labels := range r {
		blob, err := c.Get(d)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		var paths []string
		for key, text := range labels {
			if blob.Labels[key] != text {
				paths = append(paths, "labels."+key)
			}
		}
		if len(paths) == 0 {
			continue
		}
		if _, err := c.Update(metadata.Blob{Digest: d, Labels: labels}, paths...); err != nil {
			return err
		}
	}
	return nil
}

// keepSnapshot has an image's configuration keep its topmost snapshot.
func (s *Store) keepSnapshot(ctx context.Context, namespace, snapshotter string, config digest.Digest, key string) error {
	if key == "" {
		return nil
	}
	label := metadata.LabelRefSnapshot + snapshotter
	if blob, err := s.blobs.In(namespace).Blob(ctx, config); err != nil || blob.Labels[label] == key {
		return err
	}
	r := references{config: {label: key}}
	return s.db.Update(ctx, func(tx *metadata.Tx) error { return r.apply(tx, namespace) })
}

// LabelOld labels what images refer to that were recorded without these labels: by an earlier cleatd, or by a
// client. It reads only the documents of images that lack a label. An image that is not unpacked lacks one, so
// it is read at each start.
func LabelOld(ctx context.Context, db *metadata.DB, b *blobs.Store, snaps *snapshots.Store) error {
	namespaces, err := db.NamespaceNames(ctx)
	if err != nil {
		return err
	}
	for _, ns := range namespaces {
		var bare []ocispec.Descriptor
		err := db.View(ctx, func(tx *metadata.Tx) error {
			bare = nil
			images, err := tx.Images(ns).List()
			for _, img := range images {
				is, err := isBare(tx.Content(ns), img.Target.Digest, 0)
				if err != nil {
					return err
				}
				if is {
					bare = append(bare, img.Target)
				}
			}
			return err
		})
		if err == nil && len(bare) > 0 {
			err = labelBare(ctx, db, b.In(ns), snaps, bare)
		}
		if err != nil {
			return fmt.Errorf("label images of namespace %s: %w", ns, err)
		}
	}
	return nil
}

// isBare reports whether an index or manifest refers to nothing, or refers to one that does, or to a
// configuration that refers to no snapshot. What is not here is not bare.
func isBare(c metadata.Content, d digest.Digest, depth int) (bool, error) {
	blob, err := c.Get(d)
	if err != nil || depth > maxNesting {
		return false, undo.Ignore(err, errdefs.ErrNotFound)
	}
	refers := false
	for key, text := range blob.Labels {
		rest, ok := strings.CutPrefix(key, metadata.LabelRefContent)
		refers = refers || ok
		bare := false
		switch {
		case rest == ".config":
			bare, err = hasNoSnapshot(c, digest.Digest(text))
		case strings.HasPrefix(rest, ".m."):
			bare, err = isBare(c, digest.Digest(text), depth+1)
		}
		if bare || err != nil {
			return bare, err
		}
	}
	return !refers, nil
}

func hasNoSnapshot(c metadata.Content, config digest.Digest) (bool, error) {
	blob, err := c.Get(config)
	if err != nil {
		return false, undo.Ignore(err, errdefs.ErrNotFound)
	}
	for key := range blob.Labels {
		if strings.HasPrefix(key, metadata.LabelRefSnapshot) {
			return false, nil
		}
	}
	return true, nil
}

// labelBare labels all that images refer to, their snapshots included.
func labelBare(ctx context.Context, db *metadata.DB, blobs *blobs.View, snaps *snapshots.Store, targets []ocispec.Descriptor) error {
	r, err := referencesOf(ctx, blobs, Omission{}, targets...)
	if err != nil {
		return err
	}
	configs := make(references)
	for _, labels := range r {
		config := digest.Digest(labels[metadata.LabelRefContent+".config"])
		if config == "" {
			continue
		}
		top, err := image.TopSnapshot(ctx, blobs, config)
		if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrInvalidArgument) {
			continue
		}
		if err != nil {
			return err
		}
		configs[config] = make(map[string]string)
		for name := range snaps.Drivers {
			configs[config][metadata.LabelRefSnapshot+name] = top
		}
	}
	return db.Update(ctx, func(tx *metadata.Tx) error {
		if err := r.apply(tx, blobs.Namespace()); err != nil {
			return err
		}
		return configs.unpacked(tx, blobs.Namespace()).apply(tx, blobs.Namespace())
	})
}

// unpacked returns those references to snapshots that are there.
func (r references) unpacked(tx *metadata.Tx, namespace string) references {
	out := make(references)
	for config, labels := range r {
		for key, top := range labels {
			rec, err := tx.Snapshots(namespace, strings.TrimPrefix(key, metadata.LabelRefSnapshot)).Stat(top)
			if err != nil || rec.Kind != snapshot.KindCommitted {
				continue
			}
			if out[config] == nil {
				out[config] = make(map[string]string)
			}
			out[config][key] = top
		}
	}
	return out
}
