package metadata

import (
	"bytes"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/metadata/internal/records"
	"github.com/cleatproject/cleat/proto/reason"
)

// Leases are the leases of a namespace.
type Leases struct{ table table[Lease] }

// Leases returns the leases of the namespace ns.
func (tx *Tx) Leases(ns string) Leases {
	return Leases{table[Lease]{
		tx: tx, ns: ns, path: []string{leasesBucket}, noun: "lease", keyField: "id", columns: leaseColumn,
		encode: encodeLease, decode: decodeLease, missing: reason.LeaseNotFound,
	}}
}

// Create records a lease and returns it with its time. The ID must be free. A label LabelExpire
// that is not a time in RFC 3339 is ErrInvalidArgument.
func (l Leases) Create(v Lease) (Lease, error) {
	if err := validateName("lease id", v.ID); err != nil {
		return v, fmt.Errorf("create lease: %w", err)
	}
	if err := ValidateLabels(v.Labels); err != nil {
		return v, fmt.Errorf("create lease: %w", err)
	}
	if _, _, err := v.Expiry(); err != nil {
		return v, fmt.Errorf("create lease: %w", err)
	}
	v.CreatedAt = l.table.tx.time()
	v.unknown = nil
	return v, l.table.create(v.ID, &v)
}

// Expiry returns the time at which the lease expires, and false if it does not.
func (v *Lease) Expiry() (time.Time, bool, error) {
	text, ok := v.Labels[LabelExpire]
	if !ok {
		return time.Time{}, false, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, false, fmt.Errorf("lease %q: label %s=%q is not a time in RFC 3339: %w", v.ID, LabelExpire, text, errdefs.ErrInvalidArgument)
	}
	return t, true, nil
}

// Get returns a lease, or ErrNotFound.
func (l Leases) Get(id string) (Lease, error) { return l.table.get(id) }

// List returns the leases that match one of the filters, by ID; the fields are "id" and
// "labels.<key>".
func (l Leases) List(filter ...string) ([]Lease, error) { return l.table.list(filter...) }

func leaseColumn(path []string) column {
	if path[0] == "id" {
		return column{num: records.LeaseIdField, always: true}
	}
	return labelColumn(path, records.LeaseLabelsField)
}

// Expired returns the leases that have expired at now. One whose label cannot be read does not
// expire.
func (l Leases) Expired(now time.Time) ([]Lease, error) {
	var out []Lease
	err := l.table.each(func(v Lease) error {
		if end, ok, err := v.Expiry(); err == nil && ok && !end.After(now) {
			out = append(out, v)
		}
		return nil
	})
	return out, err
}

// Delete removes a lease and its hold on resources, or returns ErrNotFound.
func (l Leases) Delete(id string) error {
	if err := l.table.remove(id); err != nil {
		return err
	}
	resources, err := l.table.tx.write(l.table.ns, resourcesBucket)
	if err != nil {
		return err
	}
	prefix := []byte(id + "\x00")
	c := resources.Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Seek(prefix) {
		if err := c.Delete(); err != nil {
			return l.table.errorf(id, err)
		}
	}
	return nil
}

// AddResource adds a resource to a lease. It is idempotent; the resource need not
// exist, the lease must.
func (l Leases) AddResource(id string, r Resource) error {
	key, err := l.resourceKey(id, r)
	if err != nil {
		return err
	}
	b, err := l.table.tx.write(l.table.ns, resourcesBucket)
	if err != nil {
		return err
	}
	if err := b.Put(key, scopeOf(namespacesBucket, l.table.ns, resourcesBucket).seal(string(key), nil)); err != nil {
		return l.table.errorf(id, putError(err))
	}
	l.table.tx.touch(l.table.ns, l.table.path, id)
	return nil
}

// DeleteResource removes a resource from a lease. It is idempotent.
func (l Leases) DeleteResource(id string, r Resource) error {
	key, err := l.resourceKey(id, r)
	if err != nil {
		return err
	}
	b, err := l.table.tx.write(l.table.ns, resourcesBucket)
	if err != nil {
		return err
	}
	if err := b.Delete(key); err != nil {
		return l.table.errorf(id, err)
	}
	l.table.tx.deleted = true
	return nil
}

func (l Leases) resourceKey(id string, r Resource) ([]byte, error) {
	if !l.table.has(id) {
		return nil, l.table.errorf(id, l.table.missing)
	}
	if err := validateName("resource type", r.Type); err != nil {
		return nil, l.table.errorf(id, err)
	}
	if err := validateName("resource id", r.ID); err != nil {
		return nil, l.table.errorf(id, err)
	}
	return []byte(id + "\x00" + r.Type + "\x00" + r.ID), nil
}

// Resources returns the resources that a lease holds, by type and ID; ErrNotFound if there is no
// lease.
func (l Leases) Resources(id string) ([]Resource, error) {
	if !l.table.has(id) {
		return nil, l.table.errorf(id, l.table.missing)
	}
	b := l.table.tx.read(l.table.ns, resourcesBucket)
	if b == nil {
		return nil, nil
	}
	var out []Resource
	prefix := []byte(id + "\x00")
	c := b.Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		typ, rid, _ := bytes.Cut(k[len(prefix):], []byte{0})
		out = append(out, Resource{ID: string(rid), Type: string(typ)})
	}
	return out, nil
}
