package activation

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/durable"
)

// recordFile is an activation's record, in its directory: JSON, version 1.
const (
	recordFile    = "activation.json"
	recordVersion = 1
)

// record is an activation on disk.
type record struct {
	Version int
	Activation
	// Loops marks that there may be loop devices.
	Loops bool
	// Whole is set when everything is mounted; until then it is undone after a crash.
	Whole bool

	base string
}

// write writes the record, completely or not at all. It need not survive a reboot.
func (r *record) write() error {
	r.Version = recordVersion
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode activation: %w", err)
	}
	tmp := filepath.Join(r.base, "."+recordFile)
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("write activation: %w", err)
	}
	return durable.RenameUnsynced(tmp, filepath.Join(r.base, recordFile))
}

func readRecord(base string) (*record, error) {
	data, err := os.ReadFile(filepath.Join(base, recordFile))
	if err != nil {
		return nil, err
	}
	r := &record{base: base}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", base, err, errdefs.ErrDataLoss)
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("read %s: version %d is not supported: %w", base, r.Version, errdefs.ErrNotImplemented)
	}
	return r, nil
}

// copied returns the copy for callers.
func (r *record) copied() Activation {
	a := r.Activation
	a.Labels, a.Active, a.System = maps.Clone(a.Labels), slices.Clone(a.Active), slices.Clone(a.System)
	return a
}
