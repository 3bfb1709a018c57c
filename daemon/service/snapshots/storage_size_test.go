package snapshots

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/daemon/service/servicetest"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/btrfs"
	"github.com/cleatproject/cleat/snapshot/overlay"
	"github.com/cleatproject/cleat/snapshot/snapshottest"
)

// remembering is a driver that remembers limits where the file system does not keep them.
type remembering struct {
	*overlay.Driver
	limits map[uint64]int64
	fails  error
}

func (r *remembering) PrepareLimited(ctx context.Context, id uint64, parents []uint64, bytes int64) error {
	r.limits[id] = bytes
	return r.Prepare(ctx, id, parents, snapshot.KindActive)
}

func (r *remembering) SetLimit(_ context.Context, id uint64, bytes int64) error {
	if r.fails != nil {
		return r.fails
	}
	if _, ok := r.limits[id]; !ok {
		return errdefs.ErrFailedPrecondition
	}
	r.limits[id] = bytes
	return nil
}

// only returns the limit of the one snapshot that has any.
func (r *remembering) only(t *testing.T) int64 {
	t.Helper()
	if len(r.limits) != 1 {
		t.Fatalf("limits are %v", r.limits)
	}
	for _, bytes := range r.limits {
		return bytes
	}
	return 0
}

// stored is the snapshots in real stores.
type stored struct {
	*servicetest.Stores
	*Store
}

// open opens the stores below root.
func open(t *testing.T, root string) *stored {
	t.Helper()
	stores := servicetest.Open(t, root)
	t.Cleanup(func() { stores.Close(t) })
	return &stored{stores, &Store{DB: stores.DB, Drivers: stores.Drivers, Log: slog.New(slog.DiscardHandler)}}
}

func remembered(t *testing.T) (*stored, *remembering) {
	t.Helper()
	s := open(t, t.TempDir())
	d := &remembering{Driver: s.Store.Drivers[overlay.Name].(*overlay.Driver), limits: make(map[uint64]int64)}
	s.Store.Drivers[overlay.Name] = d
	return s, d
}

func sized(key, size string) metadata.Snapshot {
	return metadata.Snapshot{Key: key, Kind: snapshot.KindActive, Labels: map[string]string{LabelStorageSize: size, "other": "1"}}
}

func (s *stored) labels(t *testing.T, key string) (labels map[string]string) {
	t.Helper()
	must(t, s.Store.DB.View(t.Context(), func(tx *metadata.Tx) error {
		rec, err := tx.Snapshots("one", overlay.Name).Stat(key)
		labels = rec.Labels
		return err
	}))
	return labels
}

func TestStorageSize_OfNewSnapshots(t *testing.T) {
	s, d := remembered(t)
	for _, bad := range []string{"0", "-1", "1023k", "garbage", "9223372036854775808", "1e9"} {
		_, err := s.Prepare(t.Context(), "one", overlay.Name, sized("key", bad))
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), LabelStorageSize) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	view := sized("key", "10GiB")
	view.Kind = snapshot.KindView
	if _, err := s.Prepare(t.Context(), "one", overlay.Name, view); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a view: %v", err)
	}
	if _, n := s.Disk(t); n != 0 || len(d.limits) != 0 {
		t.Errorf("%d snapshots, limits %v are left", n, d.limits)
	}
	_, err := s.Prepare(t.Context(), "one", overlay.Name, sized("none", ""))
	must(t, err)
	if len(d.limits) != 0 {
		t.Errorf("an empty label limited it: %v", d.limits)
	}
	_, err = s.Prepare(t.Context(), "one", overlay.Name, sized("key", "10GiB"))
	must(t, err)
	if got := d.only(t); got != 10<<30 {
		t.Errorf("the limit is %d", got)
	}
}

func TestStorageSize_Changes(t *testing.T) {
	s, d := remembered(t)
	for key, size := range map[string]string{"key": "10m", "free": ""} {
		_, err := s.Prepare(t.Context(), "one", overlay.Name, sized(key, size))
		must(t, err)
	}
	update := func(key, size string, paths ...string) error {
		_, err := s.Update(t.Context(), "one", overlay.Name, sized(key, size), paths)
		return err
	}
	path := "labels." + LabelStorageSize
	crash := errors.New("crash")
	for _, step := range []struct {
		what, key, size string
		paths           []string
		fails           error
		want            func(error) bool
		limit           int64
		label           string
	}{
		{"one label", "key", "20m", []string{path}, nil, nil, 20 << 20, "20m"},
		{"every label", "key", "30m", nil, nil, nil, 30 << 20, "30m"},
		{"all labels by name", "key", "2g", []string{"labels"}, nil, nil, 2 << 30, "2g"},
		{"another label", "key", "40m", []string{"labels.other"}, nil, nil, 2 << 30, "2g"},
		{"too little", "key", "1k", []string{path}, nil, errdefs.IsInvalidArgument, 2 << 30, "2g"},
		{"the driver fails", "key", "40m", []string{path}, crash, func(err error) bool { return errors.Is(err, crash) }, 2 << 30, "2g"},
		{"no record is written", "key", "40m", []string{path, "kind"}, nil, errdefs.IsInvalidArgument, 2 << 30, "2g"},
		{"one without a limit", "free", "40m", []string{path}, nil, errdefs.IsFailedPrecondition, 2 << 30, "2g"},
		{"one that is not there", "none", "40m", []string{path}, nil, errdefs.IsNotFound, 2 << 30, "2g"},
		{"none any more", "key", "", []string{path}, nil, nil, 0, ""},
		{"one again", "key", "50m", []string{path}, nil, nil, 50 << 20, "50m"},
	} {
		d.fails = step.fails
		err := update(step.key, step.size, step.paths...)
		if step.want == nil && err != nil || step.want != nil && !step.want(err) {
			t.Errorf("%s: %v", step.what, err)
		}
		d.fails = nil
		if got := d.only(t); got != step.limit || s.labels(t, "key")[LabelStorageSize] != step.label {
			t.Errorf("%s: the limit is %d, labels are %v", step.what, got, s.labels(t, "key"))
		}
	}
	if s.labels(t, "free")[LabelStorageSize] != "" {
		t.Errorf("labels say that there is a limit: %v", s.labels(t, "free"))
	}
	must(t, s.Commit(t.Context(), "one", overlay.Name, "layer", "key", nil))
	if err := update("layer", "60m", path); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a committed one: %v", err)
	}
}

// TestLimits_AreRestored plays a crash between the change of a limit and that of its label.
func TestLimits_AreRestored(t *testing.T) {
	s, d := remembered(t)
	for key, size := range map[string]string{"key": "10m", "free": ""} {
		_, err := s.Prepare(t.Context(), "one", overlay.Name, sized(key, size))
		must(t, err)
	}
	want := maps.Clone(d.limits)
	for id := range d.limits {
		d.limits[id] = 77 << 20
	}
	must(t, s.RestoreLimits(t.Context()))
	if !maps.Equal(d.limits, want) {
		t.Errorf("limits are %v, want %v", d.limits, want)
	}
	d.fails = errdefs.ErrFailedPrecondition
	if err := s.RestoreLimits(t.Context()); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "key") {
		t.Errorf("where there are no quotas any more: %v", err)
	}
}

// TestStorageSize_Unsupported_Fails leaves nothing, and says what to do.
func TestStorageSize_Unsupported_Fails(t *testing.T) {
	s := open(t, snapshottest.On(t, "ext4")(t))
	_, err := s.Prepare(t.Context(), "one", overlay.Name, sized("key", "10m"))
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "project quotas") {
		t.Errorf("got %v", err)
	}
	s.Store.Drivers[btrfs.Name] = cannotLimit{s.Store.Drivers[overlay.Name]}
	_, err = s.Prepare(t.Context(), "one", btrfs.Name, sized("key", "10m"))
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "cannot limit storage") {
		t.Errorf("got %v", err)
	}
	left, err := filepath.Glob(filepath.Join(s.Root, "snapshots", "*"))
	must(t, err)
	if len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// cannotLimit hides that a driver can limit.
type cannotLimit struct{ snapshot.Driver }
