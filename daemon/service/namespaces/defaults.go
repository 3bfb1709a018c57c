package namespaces

import (
	"cmp"
	"errors"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/metadata"
)

// Labels by which a namespace sets its own defaults, as published.
const (
	labelDefaultSnapshotter = "containerd.io/defaults/snapshotter"
	labelDefaultRuntime     = "containerd.io/defaults/runtime"
)

// Defaults are the names of the snapshotter and the runtime for requests that name none.
type Defaults struct {
	Snapshotter, Runtime string
}

// In returns the defaults of a namespace, which need not exist: d, unless its labels set others.
func (d Defaults) In(tx *metadata.Tx, namespace string) (Defaults, error) {
	ns, err := tx.Namespaces().Get(namespace)
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return Defaults{}, err
	}
	return Defaults{
		Snapshotter: cmp.Or(ns.Labels[labelDefaultSnapshotter], d.Snapshotter),
		Runtime:     cmp.Or(ns.Labels[labelDefaultRuntime], d.Runtime),
	}, nil
}
