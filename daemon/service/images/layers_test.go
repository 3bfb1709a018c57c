package images

import (
	"context"
	"log/slog"
	"testing"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/daemon/service/blobs"
	"github.com/cleatproject/cleat/daemon/service/gc"
	"github.com/cleatproject/cleat/daemon/service/servicetest"
	"github.com/cleatproject/cleat/daemon/service/snapshots"
	"github.com/cleatproject/cleat/snapshot/overlay"
)

func TestCollect_KeepsObjectsOfHeldCalls(t *testing.T) {
	stores := servicetest.Open(t, t.TempDir())
	defer stores.Close(t)
	log := slog.New(slog.DiscardHandler)
	store := blobs.New(stores.DB, stores.Content)
	snaps := &snapshots.Store{DB: stores.DB, Drivers: stores.Drivers, Log: log}
	collector := gc.New(gc.Config{
		DB: stores.DB, Content: stores.Content, Blobs: store, Snapshots: snaps, Log: log,
		Prepare: func(ctx context.Context) error { return LabelOld(ctx, stores.DB, store, snaps) },
		Release: func(context.Context) error { return nil },
	})
	s := New(Config{DB: stores.DB, Blobs: store, Snapshots: snaps, Collector: collector, Log: log})
	hold := stores.DB.Hold("one")
	in := ingester{store.In("one"), hold}
	w, err := in.Writer(t.Context(), "ref", content.WriterOptions{})
	must(t, err)
	_, err = w.Write([]byte("data"))
	must(t, err)
	must(t, w.Commit(t.Context(), 0, ""))
	must(t, w.Close())
	l := &layers{s, "one", overlay.Name, hold}
	_, err = l.Prepare(t.Context(), "key", "")
	must(t, err)
	_, err = collector.Once(t.Context())
	must(t, err)
	must(t, l.Commit(t.Context(), "name", "key"))
	_, err = collector.Once(t.Context())
	must(t, err)
	if b, d := stores.Disk(t); b != 1 || d != 1 {
		t.Errorf("%d blobs, %d snapshots are left", b, d)
	}
	kept, err := collector.Why(t.Context(), "one", "name", "")
	if err != nil || len(kept) != 1 || kept[0].Chain[0].Via != "held" {
		t.Errorf("%+v %v", kept, err)
	}
	hold.Release()
	_, err = collector.Once(t.Context())
	must(t, err)
	if b, d := stores.Disk(t); b != 0 || d != 0 {
		t.Errorf("%d blobs, %d snapshots are left", b, d)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
