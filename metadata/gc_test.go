package metadata

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/snapshot"
)

const expired, later = "2029-01-01T00:00:00Z", "2031-01-01T00:00:00Z"

func content(s string) Resource { return Resource{Type: ResourceContent, ID: dgst(s).String()} }

// TestCollect_PublishedRules checks the published rules, one namespace each. Everything must be
// collected that is not named in keep.
func TestCollect_PublishedRules(t *testing.T) {
	ref := func(s string) string { return dgst(s).String() }
	for title, c := range map[string]struct {
		make func(y *yard)
		keep []string
	}{
		"an image keeps its content and snapshots": {func(y *yard) {
			y.blob("ns", "manifest", labels{"containerd.io/gc.ref.content.config": ref("config"), "containerd.io/gc.ref.content.l.0": ref("layer")})
			y.blob("ns", "config", labels{"containerd.io/gc.ref.snapshot.fs": "top"})
			y.blob("ns", "layer", nil)
			y.blob("ns", "other", nil)
			y.snapshot("ns", "fs", "base", "", nil)
			y.snapshot("ns", "fs", "top", "base", nil)
			y.snapshot("ns", "fs", "second", "base", nil)
			y.image("ns", "img", "manifest", nil)
		}, []string{"content config", "content layer", "content manifest", "image img", "snapshot base", "snapshot top"}},
		"nothing keeps an expired image": {func(y *yard) {
			y.blob("ns", "manifest", nil)
			y.image("ns", "img", "manifest", labels{LabelExpire: expired})
		}, nil},
		"an image that expires later, or says nonsense, is kept": {func(y *yard) {
			y.image("ns", "a", "manifest", labels{LabelExpire: later})
			y.image("ns", "b", "manifest", labels{LabelExpire: "soon"})
		}, []string{"image a", "image b"}},
		"an expired image that a lease holds is kept": {func(y *yard) {
			y.blob("ns", "manifest", nil)
			y.image("ns", "img", "manifest", labels{LabelExpire: expired})
			y.lease("ns", "l", nil, Resource{Type: ResourceImages, ID: "img"})
		}, []string{"content manifest", "image img", "lease l"}},
		"a container keeps its snapshot and what its labels say": {func(y *yard) {
			y.blob("ns", "a", nil)
			y.blob("ns", "b", nil)
			y.snapshot("ns", "fs", "base", "", nil)
			y.snapshot("ns", "fs", "key", "base", nil)
			y.snapshot("ns", "other", "key", "", nil)
			y.image("ns", "img", "b", labels{LabelExpire: expired})
			y.container("ns", "c", "fs", "key", labels{LabelRefContent: ref("a"), "containerd.io/gc.ref.image/x": "img"})
		}, []string{"container c", "content a", "content b", "image img", "snapshot base", "snapshot key"}},
		"a sandbox keeps what its labels say": {func(y *yard) {
			y.blob("ns", "a", nil)
			y.blob("ns", "b", nil)
			y.sandbox("ns", "pod", labels{LabelRefContent: ref("a")})
		}, []string{"content a", "sandbox pod"}},
		"a lease keeps its resources and what they refer to": {func(y *yard) {
			y.blob("ns", "a", labels{LabelRefContent + ".x": ref("b")})
			y.blob("ns", "b", nil)
			y.snapshot("ns", "fs", "s", "", nil)
			y.lease("ns", "l", labels{LabelExpire: later}, content("a"), Resource{Type: "snapshots/fs", ID: "s"}, Resource{Type: "strange", ID: "x"})
		}, []string{"content a", "content b", "lease l", "snapshot s"}},
		"a flat lease keeps its resources and what they are made of": {func(y *yard) {
			y.blob("ns", "a", labels{LabelRefContent + ".x": ref("b")})
			y.blob("ns", "b", nil)
			y.snapshot("ns", "fs", "base", "", labels{LabelRefContent: ref("b")})
			y.snapshot("ns", "fs", "s", "base", nil)
			y.lease("ns", "l", labels{LabelFlat: "true"}, content("a"), Resource{Type: "snapshots/fs", ID: "s"})
		}, []string{"content a", "lease l", "snapshot base", "snapshot s"}},
		"what a flat lease holds keeps its references where something else refers to it": {func(y *yard) {
			y.blob("ns", "a", labels{LabelRefContent + ".x": ref("b")})
			y.blob("ns", "b", nil)
			y.image("ns", "img", "a", nil)
			y.lease("ns", "l", labels{LabelFlat: "true"}, content("a"))
		}, []string{"content a", "content b", "image img", "lease l"}},
		"an expired lease goes with all it held": {func(y *yard) {
			y.blob("ns", "a", nil)
			y.lease("ns", "l", labels{LabelExpire: expired}, content("a"))
		}, nil},
		"roots keep themselves and what they refer to": {func(y *yard) {
			y.blob("ns", "a", labels{LabelRoot: "yes", LabelRefSnapshot + "fs/x": "s"})
			y.snapshot("ns", "fs", "s", "", nil)
			y.snapshot("ns", "fs", "r", "", labels{LabelRoot: "yes"})
			y.blob("ns", "no", labels{LabelRoot: ""})
		}, []string{"content a", "snapshot r", "snapshot s"}},
		"names of snapshotters may have dots, and references a suffix": {func(y *yard) {
			y.blob("ns", "a", labels{LabelRoot: "yes", LabelRefSnapshot + "a.b": "s"})
			y.snapshot("ns", "a.b", "s", "", nil)
			y.blob("ns", "c", labels{LabelRoot: "yes", LabelRefSnapshot + "c.1": "u"})
			y.snapshot("ns", "c", "u", "", nil)
		}, []string{"content a", "content c", "snapshot s", "snapshot u"}},
		"labels that only look alike refer to nothing": {func(y *yard) {
			y.blob("ns", "a", labels{LabelRoot: "yes", "containerd.io/gc.ref.contents": ref("b"), "io/gc.ref.content": ref("b"), "containerd.io/gc.ref.": ref("b")})
			y.blob("ns", "b", nil)
		}, []string{"content a"}},
		"back references keep what bears them": {func(y *yard) {
			y.blob("ns", "a", labels{"containerd.io/gc.bref.content.subject": ref("b")})
			y.blob("ns", "b", labels{LabelRoot: "yes"})
			y.snapshot("ns", "fs", "s", "", labels{"containerd.io/gc.bref.container": "c"})
			y.container("ns", "c", "", "", nil)
			y.blob("ns", "i", labels{"containerd.io/gc.bref.image": "img"})
			y.image("ns", "img", "missing", nil)
			y.blob("ns", "u", labels{"containerd.io/gc.bref.snapshot.fs": "s"})
			y.blob("ns", "dead", labels{"containerd.io/gc.bref.container": "gone"})
		}, []string{"container c", "content a", "content b", "content i", "content u", "image img", "snapshot s"}},
		"circles go as a whole": {func(y *yard) {
			y.blob("ns", "a", labels{LabelRefContent: ref("b")})
			y.blob("ns", "b", labels{LabelRefContent: ref("a")})
		}, nil},
		"namespaces refer to nothing in each other": {func(y *yard) {
			y.blob("ns", "a", nil)
			y.blob("other", "b", labels{LabelRoot: "yes", LabelRefContent: ref("a")})
			y.image("other", "img", "a", nil)
		}, nil},
	} {
		t.Run(title, func(t *testing.T) {
			y := newYard(t, "ns", "other")
			c.make(y)
			before := y.objects()
			dry, err := y.db.Garbage(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			got := y.collect(CollectOptions{Batch: 2})
			left := y.left("ns", "manifest", "config", "layer", "other", "a", "b", "c", "i", "u", "no", "dead")
			if !slices.Equal(left, c.keep) {
				t.Errorf("left is %q, want %q", left, c.keep)
			}
			if n := len(before) - len(y.objects()); n != len(got.Removed) || n != len(dry) {
				t.Errorf("%d went, reported are %d, announced were %d", n, len(got.Removed), len(dry))
			}
			if again := y.collect(CollectOptions{}); len(again.Removed) > 0 {
				t.Errorf("a second collection found %v", again.Removed)
			}
		})
	}
}

// TestCollect_UsersFirst checks, after each single deletion, that no object refers to a deleted
// one.
func TestCollect_UsersFirst(t *testing.T) {
	y := newYard(t, "ns")
	y.blob("ns", "layer", nil)
	y.snapshot("ns", "fs", "a", "", nil)
	y.snapshot("ns", "fs", "b", "a", nil)
	y.blob("ns", "config", labels{LabelRefSnapshot + "fs": "b"})
	y.blob("ns", "manifest", labels{LabelRefContent + ".config": dgst("config").String(), LabelRefContent + ".l.0": dgst("layer").String()})
	y.blob("ns", "index", labels{LabelRefContent + ".m.0": dgst("manifest").String()})
	c := y.collect(CollectOptions{Batch: 1, At: func(s SweepStep) error {
		if s != StepCommit {
			return nil
		}
		graphs, err := y.db.graphs(context.Background())
		if err != nil {
			return err
		}
		for _, e := range graphs[0].edges {
			if !graphs[0].nodes[e.to].exists {
				t.Errorf("%v is gone, and something refers to it", graphs[0].nodes[e.to].name)
			}
		}
		return nil
	}})
	if len(c.Removed) != 6 {
		t.Errorf("removed are %v", c.Removed)
	}
	for _, r := range c.Removed {
		if r.Kind == KindSnapshot && (r.SnapshotID == 0 || r.Size != 7) || r.Kind == KindContent && r.Size == 0 {
			t.Errorf("%+v", r)
		}
	}
}

func TestWhy(t *testing.T) {
	y := newYard(t, "ns")
	y.blob("ns", "config", labels{LabelRefSnapshot + "fs": "b"})
	y.blob("ns", "manifest", labels{LabelRefContent + ".config": dgst("config").String()})
	y.snapshot("ns", "fs", "a", "", nil)
	y.snapshot("ns", "fs", "b", "a", nil)
	y.image("ns", "img", "manifest", nil)
	y.blob("ns", "alone", nil)
	y.blob("ns", "flat", labels{LabelRefContent: dgst("beyond").String()})
	y.blob("ns", "beyond", nil)
	y.lease("ns", "l", labels{LabelFlat: "1"}, content("flat"))
	why := func(o Object) (out []string) {
		t.Helper()
		o.Namespace = "ns"
		chain, err := y.db.Why(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range chain {
			out = append(out, l.Kind.String()+" via "+l.Via)
		}
		return out
	}
	blob := func(s string) Object { return Object{Kind: KindContent, Name: dgst(s).String()} }
	for title, c := range map[string]struct {
		o    Object
		want []string
	}{
		"snapshot": {Object{Kind: KindSnapshot, Set: "fs", Name: "a"}, []string{
			"image via root", "content via target",
			"content via label containerd.io/gc.ref.content.config", "snapshot via label containerd.io/gc.ref.snapshot.fs", "snapshot via parent",
		}},
		"image":            {Object{Kind: KindImage, Name: "img"}, []string{"image via root"}},
		"leased":           {blob("flat"), []string{"lease via root", "content via lease"}},
		"nothing":          {blob("alone"), nil},
		"not through flat": {blob("beyond"), nil},
	} {
		if got := why(c.o); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", title, got, c.want)
		}
	}
	h := y.db.Hold("ns")
	defer h.Release()
	h.Content(dgst("alone").String())
	if got := why(blob("alone")); !slices.Equal(got, []string{"content via held"}) {
		t.Errorf("held: %q", got)
	}
	if _, err := y.db.Why(context.Background(), Object{Namespace: "ns", Kind: KindContent, Name: "x"}); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
}

func TestWithLease_HoldsCreatedObjects(t *testing.T) {
	y := newYard(t, "ns")
	y.lease("ns", "l", nil)
	ctx := WithLease(context.Background(), "l")
	id, release := y.db.ReserveSnapshotID()
	defer release()
	err := y.db.Update(ctx, func(tx *Tx) error {
		if _, err := tx.Content("ns").Create(Blob{Digest: dgst("a")}); err != nil {
			return err
		}
		_, err := tx.Snapshots("ns", "fs").Create(Snapshot{Key: "k", Kind: snapshot.KindActive, ID: id})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = y.db.Update(ctx, func(tx *Tx) error {
		_, err := tx.Snapshots("ns", "fs").Commit("name", "k", snapshot.Usage{}, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	upload := Resource{Type: ResourceIngests, ID: "ref"}
	if err := y.db.Lease(ctx, "ns", upload); err != nil {
		t.Fatal(err)
	}
	if err := y.db.Update(ctx, func(tx *Tx) error { return tx.ReleaseFromLease("ns", upload) }); err != nil {
		t.Fatal(err)
	}
	y.update(func(tx *Tx) error {
		held, err := tx.Leases("ns").Resources("l")
		if slices.Contains(held, upload) || len(held) != 3 {
			t.Errorf("the lease holds %v", held)
		}
		return err
	})
	y.blob("ns", "b", nil)
	if err := y.db.Lease(ctx, "ns", content("b")); err != nil {
		t.Fatal(err)
	}
	y.collect(CollectOptions{})
	if left := y.left("ns", "a", "b"); !slices.Equal(left, []string{"content a", "content b", "lease l", "snapshot name"}) {
		t.Errorf("left is %q", left)
	}
	if err := y.db.Lease(WithLease(ctx, "none"), "ns", content("b")); !errdefs.IsNotFound(err) {
		t.Errorf("a lease that does not exist: %v", err)
	}
	err = y.db.Update(WithLease(ctx, "none"), func(tx *Tx) error {
		_, err := tx.Content("ns").Create(Blob{Digest: dgst("c")})
		return err
	})
	if !errdefs.IsNotFound(err) || y.objects()[Object{Namespace: "ns", Kind: KindContent, Name: dgst("c").String()}] {
		t.Errorf("made something under a lease that does not exist: %v", err)
	}
}

func TestWatch_CountsChanges(t *testing.T) {
	y := newYard(t, "ns")
	var sum Changes
	y.db.Watch(func(c Changes) {
		sum.Mutations += c.Mutations
		sum.Deletions += c.Deletions
	})
	y.blob("ns", "a", nil)
	y.snapshot("ns", "fs", "s", "", nil)
	if sum != (Changes{Mutations: 2}) {
		t.Errorf("%+v", sum)
	}
	y.update(func(tx *Tx) error { return tx.Content("ns").Delete(dgst("a")) })
	_ = y.db.Update(context.Background(), func(tx *Tx) error { return tx.Content("ns").Delete(dgst("a")) }) // not found
	y.collect(CollectOptions{})
	if sum != (Changes{Mutations: 3, Deletions: 1}) {
		t.Errorf("%+v", sum)
	}
}

// FuzzLabels reads labels as a client may send them: whatever their text, reading works, and only
// what looks like a reference refers to an object.
func FuzzLabels(f *testing.F) {
	for _, key := range []string{LabelRefContent, LabelRefSnapshot + "a.b/c", "containerd.io/gc.bref.image.x", LabelExpire, "x"} {
		f.Add(key, "text")
	}
	f.Fuzz(func(t *testing.T, key, text string) {
		raw := encodeBlob(&Blob{Digest: dgst("a"), Labels: labels{key: text}})
		g := newGraph("ns", 0)
		v := &visit{g: g}
		n, _ := nounOf(KindContent)
		if err := v.record(&n, g.node(KindContent, "", []byte(dgst("a"))), raw); err != nil {
			t.Fatal(err)
		}
		refers := strings.HasPrefix(key, "containerd.io/gc.ref.") || strings.HasPrefix(key, "containerd.io/gc.bref.")
		if len(g.edges) > 0 && (!refers || text == "") {
			t.Fatalf("%q refers to %v", key, g.nodes)
		}
		for _, e := range g.edges {
			if !e.label || int(e.to) >= len(g.nodes) {
				t.Fatalf("%q: %+v", key, e)
			}
		}
		g.markRoots()
		g.garbage()
	})
}
