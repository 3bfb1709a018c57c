package metadata

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"

	"github.com/cleatproject/cleat/internal/filters"
	"github.com/cleatproject/cleat/internal/identifier"
	"github.com/cleatproject/cleat/proto/reason"
)

// Namespaces are the namespaces of the database.
type Namespaces struct{ tx *Tx }

// Namespaces returns the namespaces.
func (tx *Tx) Namespaces() Namespaces { return Namespaces{tx} }

// Create creates a namespace. Its name must be an identifier (identifier.Check) and free.
func (n Namespaces) Create(name string, labels map[string]string) error {
	if err := identifier.Check(name); err != nil {
		return fmt.Errorf("create namespace: %w", err)
	}
	if err := ValidateLabels(labels); err != nil {
		return fmt.Errorf("create namespace %q: %w", name, err)
	}
	n.tx.written = true
	_, err := n.tx.namespaces().CreateBucket([]byte(name))
	if err != nil {
		if n.tx.read(name) != nil {
			return fmt.Errorf("namespace %q: %w", name, errdefs.ErrAlreadyExists)
		}
		return fmt.Errorf("create namespace %q: %w", name, err)
	}
	return n.put(&Namespace{Name: name, Labels: labels})
}

func (n Namespaces) put(v *Namespace) error {
	b, err := n.tx.write(v.Name)
	if err != nil {
		return err
	}
	if err := b.Put([]byte(infoKey), infoScope(v.Name).seal(infoKey, encodeNamespace(v))); err != nil {
		return fmt.Errorf("write namespace %q: %w", v.Name, err)
	}
	return nil
}

// infoScope is the scope of the namespace's own record.
func infoScope(name string) scope { return scopeOf(namespacesBucket, name) }

// Get returns a namespace, or ErrNotFound.
func (n Namespaces) Get(name string) (Namespace, error) {
	var v Namespace
	b := n.tx.read(name)
	if b == nil {
		return v, fmt.Errorf("namespace %q: %w", name, reason.NamespaceNotFound)
	}
	raw, err := infoScope(name).open(infoKey, b.Get([]byte(infoKey)))
	if err == nil {
		err = decodeNamespace(raw, &v)
	}
	if err != nil {
		return v, fmt.Errorf("namespace %q: %w", name, err)
	}
	return v, nil
}

// List returns the namespaces that match one of the filters, by name; the fields are
// "name" and "labels.<key>".
func (n Namespaces) List(filter ...string) ([]Namespace, error) {
	match, err := filters.ParseAll(filter...)
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	var out []Namespace
	err = n.tx.namespaces().ForEachBucket(func(name []byte) error {
		v, err := n.Get(string(name))
		if err != nil {
			return err
		}
		if match.Match(filters.AdaptorFunc(v.field)) {
			out = append(out, v)
		}
		return nil
	})
	return out, err
}

func (v *Namespace) field(path []string) (string, bool) {
	if path[0] == "name" {
		return v.Name, len(path) == 1
	}
	return labelField(path, "labels", v.Labels)
}

// SetLabels replaces the labels.
func (n Namespaces) SetLabels(name string, labels map[string]string) error {
	_, err := n.Update(Namespace{Name: name, Labels: labels})
	return err
}

// Update changes the labels: all of them without paths, or those that paths name, as
// "labels.<key>". A missing namespace is created.
func (n Namespaces) Update(v Namespace, paths ...string) (Namespace, error) {
	old, err := n.Get(v.Name)
	if errors.Is(err, errdefs.ErrNotFound) {
		err = n.Create(v.Name, nil)
		old = Namespace{Name: v.Name}
	}
	if err != nil {
		return old, err
	}
	if err := UpdateLabels(&old.Labels, v.Labels, paths); err != nil {
		return old, fmt.Errorf("update namespace %q: %w", v.Name, err)
	}
	return old, n.put(&old)
}

// Delete removes an empty namespace. One that is not empty is ErrFailedPrecondition with a text
// that lists its content.
func (n Namespaces) Delete(name string) error {
	b := n.tx.read(name)
	if b == nil {
		return fmt.Errorf("namespace %q: %w", name, reason.NamespaceNotFound)
	}
	var left []string
	for _, noun := range [...]string{containersBucket, sandboxesBucket, imagesBucket, snapshotsBucket, leasesBucket, blobsBucket} {
		if c := count(b.Bucket([]byte(noun))); c > 0 {
			left = append(left, fmt.Sprintf("%d %s", c, noun))
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("namespace %q is not empty: %s: %w", name, strings.Join(left, ", "), reason.NamespaceNotEmpty)
	}
	n.tx.written = true
	if err := n.tx.namespaces().DeleteBucket([]byte(name)); err != nil {
		return fmt.Errorf("delete namespace %q: %w", name, err)
	}
	return nil
}

// count returns the number of records in a bucket and the buckets inside it.
func count(b *bolt.Bucket) int {
	if b == nil {
		return 0
	}
	n := 0
	_ = b.ForEach(func(k, v []byte) error {
		if v == nil {
			n += count(b.Bucket(k))
		} else {
			n++
		}
		return nil
	})
	return n
}

// labelField returns the label for the path name.<key>, the key with its dots.
func labelField(path []string, name string, m map[string]string) (string, bool) {
	if len(path) < 2 || path[0] != name {
		return "", false
	}
	v, ok := m[strings.Join(path[1:], ".")]
	return v, ok
}

// NamespaceNames returns the names of all namespaces, in order.
func (db *DB) NamespaceNames(ctx context.Context) (names []string, err error) {
	err = db.View(ctx, func(tx *Tx) error {
		names = nil
		list, err := tx.Namespaces().List()
		for _, n := range list {
			names = append(names, n.Name)
		}
		return err
	})
	return names, err
}
