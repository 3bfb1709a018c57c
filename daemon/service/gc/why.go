package gc

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// Why returns what keeps the objects of a namespace that have a name: a blob, or a snapshot of any snapshotter; of
// several kinds, each. image is the full name of the image that name stands for, "" for none.
func (c *Collector) Why(ctx context.Context, namespace, name, image string) ([]*cleatapi.Kept, error) {
	objects, err := c.named(ctx, namespace, name, image)
	if err != nil {
		return nil, err
	}
	var out []*cleatapi.Kept
	for _, o := range objects {
		chain, err := c.DB.Why(ctx, o)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(chain) == 0 {
			chain = []metadata.Link{{Object: o}}
		}
		k := &cleatapi.Kept{Name: name}
		for _, l := range chain {
			k.Chain = append(k.Chain, &cleatapi.Reference{Kind: l.Kind.String(), Snapshotter: l.Set, Name: l.Name, Via: l.Via})
		}
		out = append(out, k)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no image, blob or snapshot is called so: %w", name, errdefs.ErrNotFound)
	}
	return out, nil
}

// named returns what a name may stand for.
func (c *Collector) named(ctx context.Context, namespace, name, image string) ([]metadata.Object, error) {
	var out []metadata.Object
	if d, err := digest.Parse(name); err == nil {
		out = append(out, metadata.Object{Namespace: namespace, Kind: metadata.KindContent, Name: d.String()})
	} else if image != "" {
		out = append(out, metadata.Object{Namespace: namespace, Kind: metadata.KindImage, Name: image})
	}
	err := c.DB.View(ctx, func(tx *metadata.Tx) error {
		if _, err := tx.Namespaces().Get(namespace); err != nil {
			return err
		}
		for _, set := range tx.Snapshotters(namespace) {
			out = append(out, metadata.Object{Namespace: namespace, Kind: metadata.KindSnapshot, Set: set, Name: name})
		}
		return nil
	})
	return out, err
}
