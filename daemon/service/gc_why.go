package service

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// Why returns what keeps the objects of a namespace that have a name: an image, a blob, or a snapshot
// of any snapshotter; of several kinds, each.
func (s *Service) Why(ctx context.Context, namespace, name string) ([]*cleatapi.Kept, error) {
	objects, err := s.named(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	var out []*cleatapi.Kept
	for _, o := range objects {
		chain, err := s.DB.Why(ctx, o)
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
func (s *Service) named(ctx context.Context, namespace, name string) ([]metadata.Object, error) {
	var out []metadata.Object
	d, notDigest := digest.Parse(name)
	if notDigest == nil {
		out = append(out, metadata.Object{Namespace: namespace, Kind: metadata.KindContent, Name: d.String()})
	} else {
		img, err := s.resolve(ctx, namespace, name)
		if err == nil {
			out = append(out, metadata.Object{Namespace: namespace, Kind: metadata.KindImage, Name: img.Name})
		} else if !errors.Is(err, errdefs.ErrNotFound) {
			return nil, err
		}
	}
	err := s.DB.View(ctx, func(tx *metadata.Tx) error {
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
