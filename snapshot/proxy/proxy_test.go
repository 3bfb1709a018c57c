package proxy_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/overlay"
	"github.com/cleatproject/cleat/snapshot/proxy"
	"github.com/cleatproject/cleat/snapshot/snapshottest"
)

// TestConformance runs the suite with another process, which keeps running while the driver
// is opened again.
func TestConformance(t *testing.T) {
	root := snapshottest.On(t, "ext4")
	keepers := make(map[string]string) // sockets by root
	snapshottest.Run(t, snapshottest.Config{
		Ordered: true,
		Root: func(t *testing.T) string {
			t.Helper()
			dir, socket := root(t), socketPath(t)
			d, err := overlay.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			k := &keeper{driver: d, snaps: make(map[string]*record)}
			t.Cleanup(k.serve(t, socket))
			keepers[dir] = socket
			return dir
		},
		Open: func(dir string) (snapshot.Driver, error) {
			return proxy.Open(proxy.Config{Name: "near", Address: keepers[dir], Snapshotter: nameThere, Namespace: namespaceThere, Prefix: prefix})
		},
	})
}

// near is a driver, and the other process.
func near(t *testing.T) (d *proxy.Driver, k *keeper, socket string, stop func()) {
	t.Helper()
	behind, err := overlay.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	k = &keeper{driver: behind, snaps: make(map[string]*record)}
	socket = socketPath(t)
	stop = k.serve(t, socket)
	d = open(t, socket)
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		stop()
	})
	return d, k, socket, stop // can be called repeatedly
}

// each calls all methods that call the other process, except Cleanup.
func each(d *proxy.Driver, f func(what string, err error)) {
	ctx := context.Background()
	f("prepare", d.Prepare(ctx, 1, nil, snapshot.KindActive))
	f("view", d.Prepare(ctx, 1, nil, snapshot.KindView))
	_, err := d.Mounts(ctx, 1, nil, snapshot.KindActive)
	f("mounts", err)
	_, err = d.Commit(ctx, 1)
	f("commit", err)
	_, err = d.Usage(ctx, 1)
	f("usage", err)
	f("remove", d.Remove(ctx, 1))
}

func TestProxyDown_ReturnsUnavailable(t *testing.T) {
	socket := socketPath(t)
	d := open(t, socket)
	each(d, func(what string, err error) {
		if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), socket) || !strings.Contains(err.Error(), "near") {
			t.Errorf("%s: %v", what, err)
		}
	})
	if gone, err := d.Cleanup(t.Context(), func(uint64) bool { return false }); err != nil || len(gone) != 0 {
		t.Errorf("cleanup: %v, %v", gone, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestProxyReconnects(t *testing.T) {
	d, k, socket, stop := near(t)
	ctx := t.Context()
	if err := d.Prepare(ctx, 1, nil, snapshot.KindActive); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := d.Usage(ctx, 1); !errdefs.IsUnavailable(err) {
		t.Errorf("while it is down: %v", err)
	}
	t.Cleanup(k.serve(t, socket))
	deadline := time.After(30 * time.Second)
	for {
		_, err := d.Commit(ctx, 1)
		if err == nil {
			break
		}
		if !errdefs.IsUnavailable(err) {
			t.Fatal(err)
		}
		select {
		case <-deadline:
			t.Fatal("it is back and not asked")
		case <-time.After(10 * time.Millisecond):
		}
	}
	if _, ok := k.names()[prefix+"1"]; !ok {
		t.Errorf("the other process has %v", k.names())
	}
}

func TestProxyErrors_KeepClass(t *testing.T) {
	d, k, socket, _ := near(t)
	for _, class := range []error{
		errdefs.ErrInvalidArgument, errdefs.ErrFailedPrecondition, errdefs.ErrPermissionDenied, errdefs.ErrUnavailable,
		errdefs.ErrNotImplemented, errdefs.ErrResourceExhausted, errdefs.ErrInternal, errdefs.ErrDataLoss, errdefs.ErrUnauthenticated,
	} {
		k.before = func(context.Context, string) error {
			return errgrpc.ToGRPC(errors.Join(errors.New("the disk is full"), class))
		}
		each(d, func(what string, err error) {
			if !errors.Is(err, class) || !strings.Contains(err.Error(), socket) || !strings.Contains(err.Error(), "the disk is full") {
				t.Errorf("%s, %v: came as %v", what, class, err)
			}
		})
		if _, err := d.Cleanup(t.Context(), func(uint64) bool { return true }); !errors.Is(err, class) && !errdefs.IsUnavailable(class) {
			t.Errorf("cleanup, %v: came as %v", class, err)
		}
	}
}

// Cancelled calls return although they are not answered; the other process is notified.
func TestCancelledCalls_Return(t *testing.T) {
	d, k, _, _ := near(t)
	asked, told := make(chan struct{}), make(chan struct{})
	k.answers(func(ctx context.Context, _ string) error {
		asked <- struct{}{}
		<-ctx.Done()
		told <- struct{}{}
		return errgrpc.ToGRPC(ctx.Err())
	})
	for what, call := range map[string]func(context.Context) error{
		"prepare": func(ctx context.Context) error { return d.Prepare(ctx, 1, nil, snapshot.KindActive) },
		"mounts": func(ctx context.Context) error {
			_, err := d.Mounts(ctx, 1, nil, snapshot.KindActive)
			return err
		},
		"commit": func(ctx context.Context) error { _, err := d.Commit(ctx, 1); return err },
		"usage":  func(ctx context.Context) error { _, err := d.Usage(ctx, 1); return err },
		"remove": func(ctx context.Context) error { return d.Remove(ctx, 1) },
		"cleanup": func(ctx context.Context) error {
			_, err := d.Cleanup(ctx, func(uint64) bool { return true })
			return err
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- call(ctx) }()
		<-asked
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", what, err)
		}
		<-told
	}
}

// Remote snapshots are protected from a collector, and have unique names.
func TestPrepare_SetsLabelsAndNames(t *testing.T) {
	d, k, _, _ := near(t)
	ctx := t.Context()
	names := func() (list []string) {
		for name, v := range k.names() {
			if _, err := time.Parse(time.RFC3339, v.labels["containerd.io/gc.root"]); err != nil || len(v.labels) != 1 {
				t.Errorf("%s has the labels %v", name, v.labels)
			}
			list = append(list, name)
		}
		slices.Sort(list)
		return list
	}
	if err := errors.Join(d.Prepare(ctx, 7, nil, snapshot.KindActive), d.Prepare(ctx, 8, nil, snapshot.KindView)); err != nil {
		t.Fatal(err)
	}
	if got, want := names(), []string{prefix + "7-active", prefix + "8-active"}; !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	if _, err := d.Commit(ctx, 7); err != nil {
		t.Fatal(err)
	}
	if err := d.Prepare(ctx, 9, []uint64{7}, snapshot.KindActive); err != nil {
		t.Fatal(err)
	}
	if got, want := names(), []string{prefix + "7", prefix + "8-active", prefix + "9-active"}; !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	if parent := k.names()[prefix+"9-active"].parent; parent != prefix+"7" {
		t.Errorf("the parent is %q", parent)
	}
}

// strangers are names of others.
func strangers() []string {
	return []string{"cleat-other-1", "1", "1-active", prefix, prefix + "07", prefix + "x", prefix + "1-other", prefix + "-1", "x" + prefix + "3", prefix + "99999999999999999999"}
}

func TestCleanup_RemovesOwnSnapshotsOnly(t *testing.T) {
	d, k, _, _ := near(t)
	ctx := t.Context()
	for _, name := range strangers() {
		k.snaps[name] = &record{id: 1 << 40}
	}
	for id := range uint64(3) { // a chain
		var parents []uint64
		if id > 0 {
			parents = []uint64{id}
		}
		err := d.Prepare(ctx, id+1, parents, snapshot.KindActive)
		if err == nil {
			_, err = d.Commit(ctx, id+1)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Prepare(ctx, 4, nil, snapshot.KindActive); err != nil {
		t.Fatal(err)
	}
	// An interrupted list does not prove that unlisted snapshots are missing.
	k.answers(func(_ context.Context, method string) error {
		if method == "ListEnd" {
			return errdefs.ErrDataLoss
		}
		return nil
	})
	if gone, err := d.Cleanup(ctx, func(uint64) bool { return false }); !errdefs.IsDataLoss(err) || len(gone) != 0 {
		t.Errorf("removed %v, %v", gone, err)
	}
	k.answers(nil)
	gone, err := d.Cleanup(ctx, func(id uint64) bool { return id == 1 })
	if err != nil || !slices.Equal(gone, []uint64{4, 3, 2}) {
		t.Errorf("removed %v, %v", gone, err)
	}
	left := k.names()
	if len(left) != len(strangers())+1 || left[prefix+"1"] == nil {
		t.Errorf("left: %v", left)
	}
	for _, name := range strangers() {
		if left[name] == nil {
			t.Errorf("%q was removed", name)
		}
	}
}

// The remains of a crashed call for a number, committed, conflict with a new snapshot.
func TestPrepare_ReplacesRemains(t *testing.T) {
	d, k, _, _ := near(t)
	ctx := t.Context()
	commit := func() uint64 {
		t.Helper()
		err := d.Prepare(ctx, 1, nil, snapshot.KindActive)
		if err == nil {
			_, err = d.Commit(ctx, 1)
		}
		if err != nil {
			t.Fatal(err)
		}
		return k.names()[prefix+"1"].id
	}
	first := commit()
	if second := commit(); second == first || len(k.names()) != 1 {
		t.Errorf("the remains are used for the new one: %d, %v", second, k.names())
	}
}
