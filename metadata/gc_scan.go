package metadata

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cleatproject/cleat/metadata/internal/records"
)

// visit reads one record for the graph. Only what the graph needs is decoded, and nothing is copied
// that the graph has already.
type visit struct {
	g    *graph
	tx   *Tx
	now  time.Time
	node int32
}

// checkEvery is the number of records after which a scan checks its context.
const checkEvery = 4096

// scan reads all records of a namespace.
func (g *graph) scan(ctx context.Context, tx *Tx, now time.Time) error {
	v := &visit{g: g, tx: tx, now: now}
	seen := 0
	for _, n := range nouns() {
		sets := []string{""}
		if n.split {
			sets = tx.Snapshotters(g.ns)
		}
		for _, set := range sets {
			b := tx.read(g.ns, n.path(set)...)
			if b == nil {
				continue
			}
			err := b.ForEach(func(k, raw []byte) error {
				if seen++; seen%checkEvery == 0 && ctx.Err() != nil {
					return ctx.Err()
				}
				if raw == nil {
					return nil // a bucket
				}
				return v.record(&n, g.node(n.kind, set, k), raw)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// record reads the record of a node.
func (v *visit) record(n *noun, at int32, raw []byte) error {
	v.node = at
	v.g.nodes[at].exists = true
	if err := n.scan(v, raw); err != nil {
		return fmt.Errorf("%s in namespace %q: %w", v.g.nodes[at].object(v.g.ns), v.g.ns, err)
	}
	return nil
}

// rescan reads a record again, or learns that it was deleted; it returns its node.
func (v *visit) rescan(o Object) (int32, error) {
	n, ok := nounOf(o.Kind)
	if !ok {
		return 0, fmt.Errorf("unknown kind %d", o.Kind)
	}
	at := v.g.node(o.Kind, o.Set, []byte(o.Name))
	b := v.tx.read(v.g.ns, n.path(o.Set)...)
	var raw []byte
	if b != nil {
		raw = b.Get([]byte(o.Name))
	}
	if raw == nil {
		v.g.nodes[at].exists = false
		return at, nil
	}
	return at, v.record(&n, at, raw)
}

func (v *visit) root() { v.g.nodes[v.node].root = true }

// own adds the parts of the object.
func (v *visit) own(kind Kind, set string, key []byte, via string) {
	if len(key) > 0 {
		v.g.link(v.node, v.g.node(kind, set, key), false, func() string { return via })
	}
}

func (v *visit) image(raw []byte) error {
	expired := false
	err := fields(raw, func(f field) error {
		switch f.num {
		case records.ImageLabelsField:
			return v.label(f.b, func(k, text []byte) { expired = expired || v.expired(k, text) })
		case records.ImageTargetField:
			return fields(f.b, func(f field) error {
				if f.num == records.DescriptorDigestField {
					v.own(KindContent, "", f.b, "target")
				}
				return nil
			})
		}
		return nil
	})
	if !expired {
		v.root()
	}
	return err
}

func (v *visit) container(raw []byte) error {
	v.root()
	var snapshotter, key []byte
	err := fields(raw, func(f field) error {
		switch f.num {
		case records.ContainerLabelsField:
			return v.label(f.b, nil)
		case records.ContainerSnapshotterField:
			snapshotter = f.b
		case records.ContainerSnapshotKeyField:
			key = f.b
		}
		return nil
	})
	v.own(KindSnapshot, string(snapshotter), key, "snapshot")
	return err
}

// sandbox is a root, like a container, for what its labels refer to.
func (v *visit) sandbox(raw []byte) error {
	v.root()
	return v.labelled(raw, records.SandboxLabelsField)
}

func (v *visit) lease(raw []byte) error {
	expired := false
	v.g.nodes[v.node].flat = false
	err := fields(raw, func(f field) error {
		if f.num != records.LeaseLabelsField {
			return nil
		}
		return v.label(f.b, func(k, text []byte) {
			expired = expired || v.expired(k, text)
			if string(k) == LabelFlat && len(text) > 0 {
				v.g.nodes[v.node].flat = true
			}
		})
	})
	if !expired {
		v.root()
	}
	if err == nil {
		v.resources()
	}
	return err
}

// resources adds what a lease holds.
func (v *visit) resources() {
	b := v.tx.read(v.g.ns, resourcesBucket)
	if b == nil {
		return
	}
	prefix := []byte(v.g.nodes[v.node].key + "\x00")
	c := b.Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		typ, id, _ := bytes.Cut(k[len(prefix):], []byte{0})
		if kind, set, ok := resourceKind(string(typ)); ok {
			v.own(kind, set, id, "lease")
		}
	}
}

func (v *visit) blob(raw []byte) error { return v.labelled(raw, records.BlobLabelsField) }

func (v *visit) snapshot(raw []byte) error {
	set := v.g.nodes[v.node].set
	err := fields(raw, func(f field) error {
		if f.num == records.SnapshotParentField {
			v.own(KindSnapshot, set, f.b, "parent")
		}
		return nil
	})
	if err != nil {
		return err
	}
	return v.labelled(raw, records.SnapshotLabelsField)
}

// labelled reads the labels of a record that only its labels make a root.
func (v *visit) labelled(raw []byte, labels protowire.Number) error {
	return fields(raw, func(f field) error {
		if f.num == labels {
			return v.label(f.b, nil)
		}
		return nil
	})
}
