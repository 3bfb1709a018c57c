package metadata

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func TestSecondOpenIsRefused(t *testing.T) {
	db := openTest(t)
	_, err := OpenWith(db.path, Options{LockWait: time.Millisecond})
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), db.path) {
		t.Errorf("got %v", err)
	}
}

// TestDamage overwrites parts of the file; opening and reading may work or fail, but must
// not panic, and what fails must say which file.
func TestDamage(t *testing.T) {
	whole := filled(t)
	for _, size := range []int{0, 1, 100, 4096, 8192, len(whole) / 2} {
		tryDamaged(t, whole[:size], size == 0)
	}
	for at := 0; at < len(whole); at += 1024 {
		broken := slices.Clone(whole)
		for i := at; i < min(at+512, len(broken)); i++ {
			broken[i] ^= 0xa5
		}
		tryDamaged(t, broken, false)
	}
}

// filled returns the bytes of a database with some records.
func filled(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "meta.db")
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	update(t, db, func(tx *Tx) error {
		if err := tx.Namespaces().Create("ns", nil); err != nil {
			return err
		}
		for i := range 50 {
			if _, err := tx.Images("ns").Create(Image{Name: fmt.Sprint("i", i), Target: target("x")}); err != nil {
				return err
			}
		}
		return nil
	})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096 // behind the last one written there is only room
	return raw[:(len(bytes.TrimRight(raw, "\x00"))+page-1)/page*page]
}

func tryDamaged(t *testing.T, raw []byte, empty bool) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "meta.db")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := OpenWith(path, Options{LockWait: time.Second})
	if err != nil {
		if !strings.Contains(err.Error(), path) {
			t.Errorf("the error does not name the file: %v", err)
		}
		return
	}
	err = db.View(context.Background(), func(tx *Tx) error {
		_, err := tx.Images("ns").List()
		return err
	})
	if err != nil && !errdefs.IsDataLoss(err) && !empty {
		t.Errorf("reading a damaged file: %v, want data loss", err)
	}
	_ = db.Update(context.Background(), func(tx *Tx) error { return tx.Namespaces().Create("x", nil) })
	_ = db.Close()
}
