// Package blobs gives each namespace its view of the content store: a blob is visible to a namespace
// that has a record of it, which it gets by writing the blob or from a namespace that shares it. A
// blob is deleted with its last record, and no commit is lost to a deletion that runs concurrently.
package blobs

import (
	"context"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
)

// Store is the content store with the records of which namespace has which blob. Its methods may
// be called concurrently.
type Store struct {
	db      *metadata.DB
	content *content.Store
	// sweeping is held for reading while a blob is committed whose record is to follow, and for writing
	// while a blob is deleted whose last record was removed.
	sweeping sync.RWMutex
}

// New returns the store of these records.
func New(db *metadata.DB, store *content.Store) *Store {
	return &Store{db: db, content: store}
}

// In returns the view of a namespace.
func (s *Store) In(namespace string) *View { return &View{s: s, namespace: namespace} }

// KeepUnrecorded keeps blobs without a record from being deleted until release is called.
func (s *Store) KeepUnrecorded() (release func()) {
	s.sweeping.RLock()
	return s.sweeping.RUnlock
}

// Users returns the number of namespaces that have a record of the blob.
func (s *Store) Users(ctx context.Context, d digest.Digest) (n int, err error) {
	err = s.db.View(ctx, func(tx *metadata.Tx) error {
		users, err := tx.BlobUsers(d)
		n = len(users)
		return err
	})
	return n, err
}

// DeleteUnrecorded deletes a blob unless a namespace has a record of it, and reports whether it did.
func (s *Store) DeleteUnrecorded(ctx context.Context, d digest.Digest) (deleted bool, err error) {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	if n, err := s.Users(ctx, d); err != nil || n > 0 {
		return false, err
	}
	err = s.content.Delete(ctx, d)
	return err == nil, undo.Ignore(err, errdefs.ErrNotFound)
}
