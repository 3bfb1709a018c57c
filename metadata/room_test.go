package metadata

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// smallDisk mounts a tmpfs and returns its directory.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fillDisk leaves no block of the disk free.
func fillDisk(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

func createImage(t *testing.T, db *DB, name string) error {
	t.Helper()
	return db.Update(t.Context(), func(tx *Tx) error {
		_, err := tx.Images("ns").Create(Image{Name: name, Target: ocispec.Descriptor{
			MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 1,
			Digest: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		}, Labels: map[string]string{"filler": strings.Repeat("x", 1000)}})
		if err != nil {
			return err
		}
		return tx.Publish("ns", "/images/create", Any{TypeURL: "x", Value: []byte(name)})
	})
}

// createUntilRefused creates images from number n on and returns the number of the first that is refused.
func createUntilRefused(t *testing.T, db *DB, n int) int {
	t.Helper()
	for ; ; n++ {
		err := createImage(t, db, fmt.Sprintf("image-%d", n))
		if errdefs.IsResourceExhausted(err) && errors.Is(err, syscall.ENOSPC) {
			return n
		}
		if err != nil {
			t.Fatalf("create on a full disk: %v", err)
		}
	}
}

// TestUpdate_FullDisk_RefusesNewAndRemovesOld fills the disk under a database, and what is free
// in the file, opens it again, and removes every record of it.
func TestUpdate_FullDisk_RefusesNewAndRemovesOld(t *testing.T) {
	dir := smallDisk(t, "size=16m")
	path := filepath.Join(dir, "meta.db")
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; n < 1000; n++ {
		if err := createImage(t, db, fmt.Sprintf("image-%d", n)); err != nil {
			t.Fatal(err)
		}
	}
	fillDisk(t, dir)
	n = createUntilRefused(t, db, n)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = Open(path); err != nil {
		t.Fatalf("open on a full disk: %v", err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	before := n
	if n = createUntilRefused(t, db, n); n > before+50 { // pages that were pending are free now
		t.Fatalf("%d records were created after opening on a full disk", n-before)
	}
	for i := range n { // one update each, with an event
		name := fmt.Sprintf("image-%d", i)
		err := db.Update(t.Context(), func(tx *Tx) error {
			if err := tx.Images("ns").Delete(name); err != nil {
				return err
			}
			return tx.Publish("ns", "/images/delete", Any{TypeURL: "x", Value: []byte(name)})
		})
		if err != nil {
			t.Fatalf("remove %s of %d: %v", name, n, err)
		}
	}
	if err := createImage(t, db, "again"); err != nil {
		t.Errorf("create once records are removed: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "fill")); err != nil {
		t.Fatal(err)
	}
	for i := range 2000 {
		if err := createImage(t, db, fmt.Sprint("more-", i)); err != nil {
			t.Fatalf("create once there is room: %v", err)
		}
	}
}

func TestUpdate_SmallGrowth_SucceedsOnFullDisk(t *testing.T) {
	dir := smallDisk(t, "size=16m")
	db, err := Open(filepath.Join(dir, "meta.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := createImage(t, db, "image"); err != nil {
		t.Fatal(err)
	}
	fillDisk(t, dir)
	for i := 0; ; i++ {
		if err := createImage(t, db, fmt.Sprint(i)); err != nil {
			break
		}
	}
	for i := range 300 {
		err := db.Update(t.Context(), func(tx *Tx) error {
			v, err := tx.Images("ns").Get("image")
			if err != nil {
				return err
			}
			v.Labels["status"] = fmt.Sprint(i)
			_, err = tx.Images("ns").Update(v)
			return err
		})
		if err != nil {
			t.Fatalf("update %d: %v", i, err)
		}
	}
}

func TestOpenReadOnly_ReadsAndRefusesUpdates(t *testing.T) {
	dir := smallDisk(t, "size=16m")
	path := filepath.Join(dir, "meta.db")
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(createImage(t, db, "image"), db.Close()); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, syscall.EROFS) {
		t.Fatalf("open for writing on a read-only disk: %v", err)
	}
	db, err = OpenWith(path, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	err = db.View(t.Context(), func(tx *Tx) error {
		_, err := tx.Images("ns").Get("image")
		return err
	})
	if err != nil {
		t.Errorf("read: %v", err)
	}
	if err := createImage(t, db, "other"); !errors.Is(err, syscall.EROFS) || !errdefs.IsUnavailable(err) {
		t.Errorf("write: %v", err)
	}
}
