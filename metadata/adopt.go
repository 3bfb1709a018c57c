package metadata

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/snapshot"
)

// RecoveredNamespace holds the snapshots whose records were lost with a damaged database.
const RecoveredNamespace = "recovered"

// AdoptSnapshots records driver directories without a record as active snapshots of
// RecoveredNamespace called "lost-<number>": without a record the next clean-up removes them, and a
// running container may depend on one. It returns the numbers it adopted.
func (tx *Tx) AdoptSnapshots(snapshotter string, present []uint64) (adopted []uint64, err error) {
	known := make(map[uint64]struct{})
	if err := tx.snapshotIDs(snapshotter, known); err != nil {
		return nil, err
	}
	for _, id := range present {
		if _, ok := known[id]; ok || id == 0 {
			continue
		}
		if err := tx.Namespaces().Create(RecoveredNamespace, nil); err != nil && !errors.Is(err, errdefs.ErrAlreadyExists) {
			return nil, err
		}
		_, err := tx.Snapshots(RecoveredNamespace, snapshotter).Create(Snapshot{
			Key: fmt.Sprintf("lost-%d", id), Kind: snapshot.KindActive, ID: id,
		})
		if err != nil {
			return nil, err
		}
		adopted = append(adopted, id)
	}
	return adopted, nil
}
