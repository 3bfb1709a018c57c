package metadata

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/snapshot"
)

// model is the expected content of the database, kept in the plainest way.
type model struct {
	y       *yard
	rnd     *rand.Rand
	objects map[Object]*thing
	holds   map[Object]*Hold
}

// thing is an object of the model.
type thing struct {
	labels labels
	own    []Object // its parts
	start  time.Time
	active bool
}

// modelLabels are the labels that the test sets, and what each refers to.
func modelLabels() map[string]struct {
	kind Kind
	set  string
	back bool
} {
	type ref = struct {
		kind Kind
		set  string
		back bool
	}
	return map[string]ref{
		"containerd.io/gc.ref.content":          {KindContent, "", false},
		"containerd.io/gc.ref.content.l.0":      {KindContent, "", false},
		"containerd.io/gc.ref.content/x":        {KindContent, "", false},
		"containerd.io/gc.ref.snapshot.one":     {KindSnapshot, "one", false},
		"containerd.io/gc.ref.snapshot.two/y":   {KindSnapshot, "two", false},
		"containerd.io/gc.ref.image":            {KindImage, "", false},
		"containerd.io/gc.bref.content.subject": {KindContent, "", true},
		"containerd.io/gc.bref.image":           {KindImage, "", true},
		"containerd.io/gc.bref.container":       {KindContainer, "", true},
		"containerd.io/gc.bref.snapshot.one":    {KindSnapshot, "one", true},
	}
}

// alive computes what has to be kept, by iterating over everything until nothing changes.
func (m *model) alive() map[Object]bool {
	const flat, full = 1, 2
	level := make(map[Object]int)
	raise := func(o Object, to int) bool {
		if m.objects[o] == nil || level[o] >= to {
			return false
		}
		level[o] = to
		return true
	}
	for o, t := range m.objects {
		if m.root(o, t) {
			raise(o, full)
		}
	}
	for o := range m.holds {
		raise(o, full)
	}
	for changed := true; changed; {
		changed = false
		for o, t := range m.objects {
			for _, to := range t.own {
				l := level[o]
				if o.Kind == KindLease && t.labels[LabelFlat] != "" && l > 0 {
					l = flat
				}
				if l > 0 && raise(to, l) {
					changed = true
				}
			}
			for key, ref := range modelLabels() {
				text, ok := t.labels[key]
				if !ok {
					continue
				}
				from, to := o, Object{Namespace: o.Namespace, Kind: ref.kind, Set: ref.set, Name: text}
				if ref.back {
					from, to = to, from
				}
				if m.objects[from] != nil && level[from] == full && raise(to, full) {
					changed = true
				}
			}
		}
	}
	out := make(map[Object]bool)
	for o, l := range level {
		out[o] = l > 0
	}
	return out
}

func (m *model) root(o Object, t *thing) bool {
	over := false
	if end, err := time.Parse(time.RFC3339, t.labels[LabelExpire]); err == nil {
		over = !end.After(m.y.clock())
	}
	switch o.Kind {
	case KindContainer:
		return true
	case KindImage, KindLease:
		return !over
	default:
		return t.labels[LabelRoot] != ""
	}
}

func (m *model) pick(list ...string) string { return list[m.rnd.IntN(len(list))] }

func (m *model) digest() string { return dgst(fmt.Sprint(m.rnd.IntN(12))).String() }

// anyName returns a name that objects of a kind may have.
func (m *model) anyName(k Kind) string {
	switch k {
	case KindContent:
		return m.digest()
	case KindSnapshot:
		return fmt.Sprint("s", m.rnd.IntN(8))
	default:
		return fmt.Sprint(k.String()[:2], m.rnd.IntN(4))
	}
}

func (m *model) anyLabels(k Kind) labels {
	l := labels{}
	for key, ref := range modelLabels() {
		if m.rnd.IntN(9) == 0 {
			l[key] = m.anyName(ref.kind)
		}
	}
	switch {
	case k == KindLease && m.rnd.IntN(2) == 0:
		l[LabelFlat] = "1"
	case (k == KindContent || k == KindSnapshot) && m.rnd.IntN(8) == 0:
		l[LabelRoot] = "1"
	}
	if (k == KindLease || k == KindImage) && m.rnd.IntN(2) == 0 {
		l[LabelExpire] = m.y.clock().Add(time.Duration(m.rnd.IntN(40)) * time.Hour).Format(time.RFC3339)
	}
	return l
}

// step applies one change to the database, and to the model if the database accepted it.
func (m *model) step() {
	ns := m.pick("a", "b", "c")
	k := []Kind{KindImage, KindContainer, KindLease, KindContent, KindContent, KindSnapshot, KindSnapshot}[m.rnd.IntN(7)]
	o := Object{Namespace: ns, Kind: k, Name: m.anyName(k)}
	if k == KindSnapshot {
		o.Set = m.pick("one", "two")
	}
	switch n := m.rnd.IntN(20); {
	case n < 8:
		m.create(o)
	case n < 11:
		m.delete(o)
	case n < 14:
		m.relabel(o)
	case n < 16:
		m.resource(ns)
	case n < 18:
		m.hold(o)
	case n < 19:
		m.y.now.Add(int64(m.rnd.IntN(6)))
	default:
		m.commit(o)
	}
}

// try runs an update; an error must be of a class that the model allows.
func (m *model) try(about Object, fn func(tx *Tx) error) bool {
	m.y.t.Helper()
	err := m.y.db.Update(context.Background(), fn)
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsAlreadyExists(err) && !errdefs.IsFailedPrecondition(err) {
		m.y.t.Fatalf("%s: %v", about, err)
	}
	return err == nil
}

func (m *model) create(o Object) {
	t := &thing{labels: m.anyLabels(o.Kind), start: m.y.clock()}
	in := func(k Kind, set, name string) Object {
		return Object{Namespace: o.Namespace, Kind: k, Set: set, Name: name}
	}
	d := m.digest()
	set, key := m.pick("one", "two"), m.anyName(KindSnapshot)
	id, release := m.y.db.ReserveSnapshotID()
	defer release()
	if m.try(o, func(tx *Tx) (err error) {
		switch o.Kind {
		case KindImage:
			v := target("x")
			v.Digest = digest.Digest(d)
			_, err = tx.Images(o.Namespace).Create(Image{Name: o.Name, Target: v, Labels: t.labels})
			t.own = []Object{in(KindContent, "", d)}
		case KindContainer:
			_, err = tx.Containers(o.Namespace).Create(Container{ID: o.Name, Runtime: Runtime{Name: "r"}, Snapshotter: set, SnapshotKey: key, Labels: t.labels})
			t.own = []Object{in(KindSnapshot, set, key)}
		case KindLease:
			_, err = tx.Leases(o.Namespace).Create(Lease{ID: o.Name, Labels: t.labels})
		case KindContent:
			_, err = tx.Content(o.Namespace).Create(Blob{Digest: digest.Digest(o.Name), Labels: t.labels})
		case KindSnapshot:
			parent := ""
			if m.rnd.IntN(3) > 0 {
				parent = key
				t.own = []Object{in(KindSnapshot, o.Set, parent)}
			}
			t.active = true
			_, err = tx.Snapshots(o.Namespace, o.Set).Create(Snapshot{Key: o.Name, Parent: parent, Kind: snapshot.KindActive, ID: id, Labels: t.labels})
		}
		return err
	}) {
		m.objects[o] = t
	}
}

func (m *model) delete(o Object) {
	if m.try(o, func(tx *Tx) error {
		switch o.Kind {
		case KindImage:
			return tx.Images(o.Namespace).Delete(o.Name)
		case KindContainer:
			return tx.Containers(o.Namespace).Delete(o.Name)
		case KindLease:
			return tx.Leases(o.Namespace).Delete(o.Name)
		case KindContent:
			return tx.Content(o.Namespace).Delete(digest.Digest(o.Name))
		case KindSnapshot:
			_, err := tx.Snapshots(o.Namespace, o.Set).Remove(o.Name)
			return err
		default:
			return errdefs.ErrNotFound
		}
	}) {
		delete(m.objects, o)
	}
}

func (m *model) relabel(o Object) {
	l := m.anyLabels(o.Kind)
	if m.try(o, func(tx *Tx) (err error) {
		switch o.Kind {
		case KindImage:
			_, err = tx.Images(o.Namespace).Update(Image{Name: o.Name, Labels: l}, "labels")
		case KindContainer:
			_, err = tx.Containers(o.Namespace).Update(Container{ID: o.Name, Labels: l}, "labels")
		case KindContent:
			_, err = tx.Content(o.Namespace).Update(Blob{Digest: digest.Digest(o.Name), Labels: l})
		case KindSnapshot:
			_, err = tx.Snapshots(o.Namespace, o.Set).Update(Snapshot{Key: o.Name, Labels: l})
		default:
			return errdefs.ErrNotFound
		}
		return err
	}) {
		m.objects[o].labels = l
	}
}

func (m *model) resource(ns string) {
	lease := Object{Namespace: ns, Kind: KindLease, Name: m.anyName(KindLease)}
	k := []Kind{KindContent, KindSnapshot, KindImage}[m.rnd.IntN(3)]
	o := Object{Namespace: ns, Kind: k, Name: m.anyName(k)}
	r := Resource{ID: o.Name}
	switch k {
	case KindContent:
		r.Type = ResourceContent
	case KindImage:
		r.Type = ResourceImages
	default:
		o.Set = m.pick("one", "two")
		r.Type = ResourceSnapshots + o.Set
	}
	if m.rnd.IntN(4) == 0 {
		if m.try(lease, func(tx *Tx) error { return tx.Leases(ns).DeleteResource(lease.Name, r) }) {
			var rest []Object
			for _, old := range m.objects[lease].own {
				if old != o {
					rest = append(rest, old)
				}
			}
			m.objects[lease].own = rest
		}
		return
	}
	if m.try(lease, func(tx *Tx) error { return tx.Leases(ns).AddResource(lease.Name, r) }) {
		m.objects[lease].own = append(m.objects[lease].own, o)
	}
}

func (m *model) hold(o Object) {
	if h := m.holds[o]; h != nil {
		h.Release()
		delete(m.holds, o)
		return
	}
	h := m.y.db.Hold(o.Namespace)
	h.add(o)
	m.holds[o] = h
}

func (m *model) commit(o Object) {
	if o.Kind != KindSnapshot {
		return
	}
	to := o
	to.Name = m.anyName(KindSnapshot)
	l := m.anyLabels(KindSnapshot)
	if m.try(o, func(tx *Tx) error {
		_, err := tx.Snapshots(o.Namespace, o.Set).Commit(to.Name, o.Name, snapshot.Usage{}, l)
		return err
	}) {
		t := m.objects[o]
		delete(m.objects, o)
		t.labels, t.active = l, false
		m.objects[to] = t
	}
}

// check compares the database with the model. What is missing must have been garbage; with exact,
// garbage must be missing. The model then forgets it.
func (m *model) check(exact bool) error {
	there, alive := m.y.objects(), m.alive()
	var errs error
	for o := range alive {
		if !there[o] {
			errs = errors.Join(errs, fmt.Errorf("%s of %s is gone and was in use", o, o.Namespace))
		}
	}
	for o := range there {
		if m.objects[o] == nil {
			errs = errors.Join(errs, fmt.Errorf("%s of %s is there again", o, o.Namespace))
		} else if exact && !alive[o] {
			errs = errors.Join(errs, fmt.Errorf("%s of %s is left", o, o.Namespace))
		}
	}
	for o := range m.objects {
		if !there[o] {
			delete(m.objects, o)
		}
	}
	return errs
}
