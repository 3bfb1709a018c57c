package metadata

import (
	"context"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/snapshot"
)

// yard is a database with objects to be collected, and a clock of its own.
type yard struct {
	t   *testing.T
	db  *DB
	now atomic.Int64 // hours
}

func newYard(t *testing.T, namespaces ...string) *yard {
	t.Helper()
	y := &yard{t: t}
	db, err := OpenWith(filepath.Join(t.TempDir(), "meta.db"), Options{Now: y.clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	y.db = db
	for _, ns := range namespaces {
		y.update(func(tx *Tx) error { return tx.Namespaces().Create(ns, nil) })
	}
	return y
}

func (y *yard) clock() time.Time {
	return time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(y.now.Load()) * time.Hour)
}

func (y *yard) update(fn func(*Tx) error) {
	y.t.Helper()
	if err := y.db.Update(context.Background(), fn); err != nil {
		y.t.Fatal(err)
	}
}

func dgst(s string) digest.Digest { return digest.FromString(s) }

type labels = map[string]string

func (y *yard) blob(ns, s string, l labels) {
	y.t.Helper()
	y.update(func(tx *Tx) error {
		_, err := tx.Content(ns).Create(Blob{Digest: dgst(s), Size: int64(len(s)), Labels: l})
		return err
	})
}

func (y *yard) image(ns, nm, to string, l labels) {
	y.t.Helper()
	y.update(func(tx *Tx) error {
		_, err := tx.Images(ns).Create(Image{Name: nm, Target: target(to), Labels: l})
		return err
	})
}

func (y *yard) snapshot(ns, set, key, parent string, l labels) {
	y.t.Helper()
	id, release := y.db.ReserveSnapshotID()
	defer release()
	y.update(func(tx *Tx) error {
		s := tx.Snapshots(ns, set)
		if _, err := s.Create(Snapshot{Key: "tmp-" + key, Parent: parent, Kind: snapshot.KindActive, ID: id}); err != nil {
			return err
		}
		_, err := s.Commit(key, "tmp-"+key, snapshot.Usage{Size: 7}, l)
		return err
	})
}

func (y *yard) container(ns, id, set, key string, l labels) {
	y.t.Helper()
	y.update(func(tx *Tx) error {
		_, err := tx.Containers(ns).Create(Container{ID: id, Runtime: Runtime{Name: "r"}, Snapshotter: set, SnapshotKey: key, Labels: l})
		return err
	})
}

func (y *yard) sandbox(ns, id string, l labels) {
	y.t.Helper()
	y.update(func(tx *Tx) error {
		_, err := tx.Sandboxes(ns).Create(Sandbox{ID: id, Runtime: Runtime{Name: "r"}, Labels: l})
		return err
	})
}

func (y *yard) lease(ns, id string, l labels, held ...Resource) {
	y.t.Helper()
	y.update(func(tx *Tx) error {
		if _, err := tx.Leases(ns).Create(Lease{ID: id, Labels: l}); err != nil {
			return err
		}
		for _, r := range held {
			if err := tx.Leases(ns).AddResource(id, r); err != nil {
				return err
			}
		}
		return nil
	})
}

// left lists what a namespace holds, digests by the text they were computed from.
func (y *yard) left(ns string, names ...string) []string {
	y.t.Helper()
	var out []string
	for o := range y.objects() {
		if o.Namespace != ns {
			continue
		}
		text := o.Name
		for _, s := range names {
			if o.Kind == KindContent && dgst(s).String() == o.Name {
				text = s
			}
		}
		out = append(out, o.Kind.String()+" "+text)
	}
	slices.Sort(out)
	return out
}

// objects returns all recorded objects.
func (y *yard) objects() map[Object]bool {
	y.t.Helper()
	all := make(map[Object]bool)
	graphs, err := y.db.graphs(context.Background())
	if err != nil {
		y.t.Fatal(err)
	}
	for _, g := range graphs {
		for _, n := range g.nodes {
			if n.exists {
				all[n.object(g.ns)] = true
			}
		}
	}
	return all
}

func (y *yard) collect(opts CollectOptions) Collection {
	y.t.Helper()
	c, err := y.db.Collect(context.Background(), opts)
	if err != nil {
		y.t.Fatal(err)
	}
	return c
}
