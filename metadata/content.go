package metadata

import (
	"fmt"
	"strconv"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/metadata/internal/records"
	"github.com/cleatproject/cleat/proto/reason"
)

// Content records which blobs of the content store a namespace sees.
type Content struct {
	blobs table[Blob]
}

// Content returns the content of the namespace ns.
func (tx *Tx) Content(ns string) Content {
	return Content{
		blobs: table[Blob]{
			tx: tx, ns: ns, path: []string{blobsBucket}, noun: "content", keyField: "digest", columns: blobColumn,
			encode: encodeBlob, decode: decodeBlob, missing: reason.ContentNotFound,
		},
	}
}

// Create makes a blob visible in the namespace and returns it with its times. It returns
// ErrAlreadyExists if the blob was visible.
func (c Content) Create(v Blob) (Blob, error) {
	if err := v.validate(); err != nil {
		return v, fmt.Errorf("record content: %w", err)
	}
	v.CreatedAt = c.blobs.tx.time()
	v.UpdatedAt = v.CreatedAt
	v.unknown = nil
	if err := c.blobs.create(v.Digest.String(), &v); err != nil {
		return v, err
	}
	return v, c.blobs.tx.HoldUnderLease(c.blobs.ns, Resource{Type: ResourceContent, ID: v.Digest.String()})
}

func (v *Blob) validate() error {
	if err := validateDigest(v.Digest); err != nil {
		return err
	}
	if v.Size < 0 {
		return fmt.Errorf("content %s has the size %d: %w", v.Digest, v.Size, errdefs.ErrInvalidArgument)
	}
	return ValidateLabels(v.Labels)
}

// Get returns a blob's record, or ErrNotFound.
func (c Content) Get(d digest.Digest) (Blob, error) { return c.blobs.get(d.String()) }

// List returns the blobs that match one of the filters, by digest; the fields are
// "digest", "size" and "labels.<key>".
func (c Content) List(filter ...string) ([]Blob, error) { return c.blobs.list(filter...) }

// Walk calls fn with each blob that List would return, without collecting them.
func (c Content) Walk(fn func(Blob) error, filter ...string) error {
	return c.blobs.each(fn, filter...)
}

func blobColumn(path []string) column {
	switch path[0] {
	case "digest":
		return column{num: records.BlobDigestField, always: true}
	case "size":
		return column{num: records.BlobSizeField, number: func(u uint64) string { return strconv.FormatInt(int64(u), 10) }}
	default:
		return labelColumn(path, records.BlobLabelsField)
	}
}

// Update changes the labels: all of them without paths, or those that paths name, as
// "labels.<key>".
func (c Content) Update(v Blob, paths ...string) (Blob, error) {
	old, err := c.blobs.get(v.Digest.String())
	if err != nil {
		return old, err
	}
	if err := UpdateLabels(&old.Labels, v.Labels, paths); err != nil {
		return old, c.blobs.errorf(v.Digest.String(), err)
	}
	old.UpdatedAt = c.blobs.tx.time()
	return old, c.blobs.put(v.Digest.String(), &old)
}

// Delete makes a blob invisible in the namespace, or returns ErrNotFound. The store's copy may be
// removed once Tx.BlobUsers returns no namespace.
func (c Content) Delete(d digest.Digest) error { return c.blobs.remove(d.String()) }

// BlobUsers returns the namespaces that see a blob.
func (tx *Tx) BlobUsers(d digest.Digest) ([]string, error) {
	var users []string
	err := tx.namespaces().ForEachBucket(func(ns []byte) error {
		if c := tx.Content(string(ns)); c.blobs.has(d.String()) {
			users = append(users, string(ns))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find users of %s: %w", d, err)
	}
	return users, nil
}
