package metadata_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/overlay"
)

// createContainer shows the order of steps that keeps records and directories consistent: read,
// reserve, prepare, and commit all records at once.
func createContainer(ctx context.Context, db *metadata.DB, driver snapshot.Driver, id, parent string) (err error) {
	var u undo.Stack
	defer func() { err = errors.Join(err, u.Run()) }()

	var parents []uint64
	err = db.View(ctx, func(tx *metadata.Tx) (err error) {
		parents, err = tx.Snapshots("default", driver.Name()).ParentIDs(parent)
		return err
	})
	if err != nil {
		return err
	}
	number, release := db.ReserveSnapshotID()
	defer release()
	if err := driver.Prepare(ctx, number, parents, snapshot.KindActive); err != nil {
		return err
	}
	u.Push("remove snapshot directory", func() error { return driver.Remove(context.WithoutCancel(ctx), number) })

	err = db.Update(ctx, func(tx *metadata.Tx) error {
		_, err := tx.Snapshots("default", driver.Name()).Create(metadata.Snapshot{
			Key: id, Parent: parent, Kind: snapshot.KindActive, ID: number,
		})
		if err != nil {
			return err
		}
		_, err = tx.Containers("default").Create(metadata.Container{
			ID: id, Runtime: metadata.Runtime{Name: "io.containerd.cleat.v2"},
			Snapshotter: driver.Name(), SnapshotKey: id,
		})
		return err
	})
	if err != nil {
		return err
	}
	u.Release()
	return nil
}

// removeContainer works in reverse: records first, the directory after. A crash in between leaves a
// directory that Cleanup removes.
func removeContainer(ctx context.Context, db *metadata.DB, driver snapshot.Driver, id string) error {
	var gone metadata.Snapshot
	err := db.Update(ctx, func(tx *metadata.Tx) (err error) {
		if err := tx.Containers("default").Delete(id); err != nil {
			return err
		}
		gone, err = tx.Snapshots("default", driver.Name()).Remove(id)
		return err
	})
	if err != nil {
		return err
	}
	return driver.Remove(ctx, gone.ID)
}

// A container and its snapshot, created and removed together.
func Example() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx := context.Background()
	db, err := metadata.Open(filepath.Join(dir, "meta.db"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = db.Close() }()
	driver, err := overlay.Open(filepath.Join(dir, "snapshots"))
	if err != nil {
		fmt.Println(err)
		return
	}

	// At every start: what a crash left behind.
	live, err := db.LiveSnapshots(ctx, driver.Name())
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := driver.Cleanup(ctx, live); err != nil {
		fmt.Println(err)
		return
	}

	err = db.Update(ctx, func(tx *metadata.Tx) error { return tx.Namespaces().Create("default", nil) })
	fmt.Println("namespace:", err)
	fmt.Println("create:", createContainer(ctx, db, driver, "web", ""))
	fmt.Println("twice:", createContainer(ctx, db, driver, "web", ""))
	fmt.Println("remove:", removeContainer(ctx, db, driver, "web"))
	left, err := os.ReadDir(filepath.Join(dir, "snapshots"))
	fmt.Println("left:", len(left), err)
	// Output:
	// namespace: <nil>
	// create: <nil>
	// twice: snapshot "web" in namespace "default": already exists
	// remove: <nil>
	// left: 0 <nil>
}
