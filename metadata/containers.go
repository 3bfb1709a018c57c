package metadata

import (
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/identifier"
	"github.com/cleatproject/cleat/metadata/internal/records"
	"github.com/cleatproject/cleat/proto/reason"
)

// Containers are the containers of a namespace.
type Containers struct{ table table[Container] }

// Containers returns the containers of the namespace ns.
func (tx *Tx) Containers(ns string) Containers {
	return Containers{table[Container]{
		tx: tx, ns: ns, path: []string{containersBucket}, noun: "container", keyField: "id", columns: containerColumn,
		encode: encodeContainer, decode: decodeContainer, missing: reason.ContainerNotFound, taken: reason.ContainerExists,
	}}
}

// Create records a container and returns it with its times; CreatedAt is the current time unless it
// is set. The ID must be an identifier and free, the runtime must be named.
func (c Containers) Create(v Container) (Container, error) {
	if err := v.validate(); err != nil {
		return v, fmt.Errorf("create container: %w", err)
	}
	v.UpdatedAt = c.table.tx.time()
	if v.CreatedAt.IsZero() {
		v.CreatedAt = v.UpdatedAt
	}
	v.unknown = nil
	return v, c.table.create(v.ID, &v)
}

// Get returns a container, or ErrNotFound.
func (c Containers) Get(id string) (Container, error) { return c.table.get(id) }

// List returns the containers that match one of the filters, by ID; the fields are "id",
// "image", "runtime.name", "snapshotter", "snapshotkey", "sandboxid" and "labels.<key>".
func (c Containers) List(filter ...string) ([]Container, error) { return c.table.list(filter...) }

func containerColumn(path []string) column {
	switch path[0] {
	case "id":
		return column{num: records.ContainerIdField, always: true}
	case "image":
		return column{num: records.ContainerImageField}
	case "snapshotter":
		return column{num: records.ContainerSnapshotterField}
	case "snapshotkey":
		return column{num: records.ContainerSnapshotKeyField}
	case "sandboxid":
		return column{num: records.ContainerSandboxIdField}
	case "runtime":
		if len(path) == 2 && path[1] == "name" {
			return column{num: records.ContainerRuntimeField, always: true}
		}
		return column{}
	default:
		return labelColumn(path, records.ContainerLabelsField)
	}
}

// Update changes the fields that paths name: "labels", "labels.<key>", "image", "spec",
// "extensions", "extensions.<key>", "snapshotkey", "sandboxid". Without paths all of
// these are replaced; then a different runtime name or snapshotter is an invalid
// argument, since these are fixed for a container's life.
func (c Containers) Update(v Container, paths ...string) (Container, error) {
	old, err := c.table.get(v.ID)
	if err != nil {
		return old, err
	}
	if len(paths) == 0 {
		if v.Runtime.Name != "" && v.Runtime.Name != old.Runtime.Name || v.Snapshotter != "" && v.Snapshotter != old.Snapshotter {
			return old, c.table.errorf(v.ID, fmt.Errorf("runtime and snapshotter are fixed: %w", errdefs.ErrInvalidArgument))
		}
		paths = []string{"labels", "image", "spec", "extensions", "snapshotkey"}
	}
	for _, p := range paths {
		if !old.set(p, &v) {
			return old, c.table.errorf(v.ID, badPath(p))
		}
	}
	if err := old.validate(); err != nil {
		return old, c.table.errorf(v.ID, err)
	}
	old.UpdatedAt = c.table.tx.time()
	return old, c.table.put(old.ID, &old)
}

func (v *Container) set(path string, from *Container) bool {
	switch path {
	case "image":
		v.Image = from.Image
	case "spec":
		v.Spec = from.Spec
	case "snapshotkey":
		v.SnapshotKey = from.SnapshotKey
	case "sandboxid":
		v.SandboxID = from.SandboxID
	default:
		return setMap(path, "labels", &v.Labels, from.Labels) ||
			setMap(path, "extensions", &v.Extensions, from.Extensions)
	}
	return true
}

func (v *Container) validate() error {
	if err := identifier.Check(v.ID); err != nil {
		return err
	}
	if v.Runtime.Name == "" {
		return fmt.Errorf("container %q has no runtime name: %w", v.ID, errdefs.ErrInvalidArgument)
	}
	if v.SnapshotKey != "" && v.Snapshotter == "" {
		return fmt.Errorf("container %q has a snapshot but names no snapshotter: %w", v.ID, errdefs.ErrInvalidArgument)
	}
	if err := validateExtensions("container", v.ID, v.Extensions); err != nil {
		return err
	}
	return ValidateLabels(v.Labels)
}

// Delete removes the record, or returns ErrNotFound.
func (c Containers) Delete(id string) error { return c.table.remove(id) }
