package metadata

import (
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/identifier"
	"github.com/cleatproject/cleat/metadata/internal/records"
	"github.com/cleatproject/cleat/proto/reason"
)

// Sandboxes are the sandboxes of a namespace: the environments that containers share. The records
// describe how to create one, not whether it runs.
type Sandboxes struct{ table table[Sandbox] }

// Sandboxes returns the sandboxes of the namespace ns.
func (tx *Tx) Sandboxes(ns string) Sandboxes {
	return Sandboxes{table[Sandbox]{
		tx: tx, ns: ns, path: []string{sandboxesBucket}, noun: "sandbox", keyField: "id", columns: sandboxColumn,
		encode: encodeSandbox, decode: decodeSandbox, missing: reason.SandboxNotFound,
	}}
}

// Create records a sandbox and returns it with its times. The ID must be an identifier
// and free, the runtime must be named.
func (s Sandboxes) Create(v Sandbox) (Sandbox, error) {
	if err := v.validate(); err != nil {
		return v, fmt.Errorf("create sandbox: %w", err)
	}
	v.CreatedAt = s.table.tx.time()
	v.UpdatedAt = v.CreatedAt
	v.unknown = nil
	return v, s.table.create(v.ID, &v)
}

func (v *Sandbox) validate() error {
	if err := identifier.Check(v.ID); err != nil {
		return err
	}
	if v.Runtime.Name == "" {
		return fmt.Errorf("sandbox %q has no runtime name: %w", v.ID, errdefs.ErrInvalidArgument)
	}
	if err := validateExtensions("sandbox", v.ID, v.Extensions); err != nil {
		return err
	}
	return ValidateLabels(v.Labels)
}

// Get returns a sandbox, or ErrNotFound.
func (s Sandboxes) Get(id string) (Sandbox, error) { return s.table.get(id) }

// List returns the sandboxes that match one of the filters, by ID; the fields are "id",
// "runtime.name", "sandboxer" and "labels.<key>".
func (s Sandboxes) List(filter ...string) ([]Sandbox, error) { return s.table.list(filter...) }

func sandboxColumn(path []string) column {
	switch path[0] {
	case "id":
		return column{num: records.SandboxIdField, always: true}
	case "runtime":
		if len(path) == 2 && path[1] == "name" {
			return column{num: records.SandboxRuntimeField, always: true}
		}
		return column{}
	case "sandboxer":
		return column{num: records.SandboxSandboxerField}
	default:
		return labelColumn(path, records.SandboxLabelsField)
	}
}

// Update changes the fields that paths name: "labels", "labels.<key>", "extensions",
// "extensions.<key>", "spec", "runtime". Without paths labels, extensions and spec are
// replaced. The sandboxer is fixed.
func (s Sandboxes) Update(v Sandbox, paths ...string) (Sandbox, error) {
	old, err := s.table.get(v.ID)
	if err != nil {
		return old, err
	}
	if len(paths) == 0 {
		paths = []string{"labels", "extensions", "spec"}
	}
	for _, p := range paths {
		switch {
		case p == "spec":
			old.Spec = v.Spec
		case p == "runtime":
			old.Runtime = v.Runtime
		case setMap(p, "labels", &old.Labels, v.Labels):
		case setMap(p, "extensions", &old.Extensions, v.Extensions):
		default:
			return old, s.table.errorf(v.ID, badPath(p))
		}
	}
	if err := old.validate(); err != nil {
		return old, s.table.errorf(v.ID, err)
	}
	old.UpdatedAt = s.table.tx.time()
	return old, s.table.put(old.ID, &old)
}

// Delete removes the record, or returns ErrNotFound.
func (s Sandboxes) Delete(id string) error { return s.table.remove(id) }
