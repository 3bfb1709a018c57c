package metadata

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/snapshot"
)

func TestOpen_SecondProcess_Fails(t *testing.T) {
	db := openTest(t)
	_, err := OpenWith(db.path, Options{LockWait: time.Millisecond})
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), db.path) {
		t.Errorf("got %v", err)
	}
}

// filled returns the bytes of a database with branches, free pages and every noun, and
// what is in it.
func filled(t *testing.T) ([]byte, holdings) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "meta.db")
	db, err := OpenWith(path, Options{Now: clock()})
	if err != nil {
		t.Fatal(err)
	}
	update(t, db, func(tx *Tx) error {
		if err := tx.Namespaces().Create("ns", map[string]string{"a": "b"}); err != nil {
			return err
		}
		return tx.Namespaces().Create("other", nil)
	})
	for round := range 4 {
		update(t, db, func(tx *Tx) error {
			for i := range 30 {
				if err := fillOne(tx, fmt.Sprintf("n%d-%d", round, i), uint64(round*30+i+1)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for i := range 30 {
		update(t, db, func(tx *Tx) error { return tx.Containers("ns").Delete(fmt.Sprintf("n2-%d", i)) })
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096 // after the last written page there is only free space
	raw = raw[:(len(bytes.TrimRight(raw, "\x00"))+page-1)/page*page]
	if db, err = Open(path); err != nil {
		t.Fatal(err)
	}
	held := holdingsOf(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return raw, held
}

func fillOne(tx *Tx, name string, id uint64) error {
	spec := &Any{"spec", []byte(strings.Repeat(name, 100))}
	_, err := tx.Containers("ns").Create(Container{ID: name, Runtime: Runtime{Name: "r"}, Spec: spec, Labels: map[string]string{"k": name}})
	if err != nil {
		return err
	}
	if _, err := tx.Images("ns").Create(Image{Name: name, Target: target(name)}); err != nil {
		return err
	}
	if _, err := tx.Content("ns").Create(Blob{Digest: digest.FromString(name), Size: 1}); err != nil {
		return err
	}
	if _, err := tx.Leases("ns").Create(Lease{ID: name}); err != nil {
		return err
	}
	if err := tx.Leases("ns").AddResource(name, Resource{name, "content"}); err != nil {
		return err
	}
	_, err = tx.Snapshots("ns", "overlayfs").Create(Snapshot{Key: name, Kind: snapshot.KindActive, ID: id})
	return err
}

// holdings are the records of filled's database.
type holdings struct {
	namespaces []Namespace
	containers []Container
	images     []Image
	blobs      []Blob
	leases     []Lease
	resources  []Resource
	snapshots  []Snapshot
	next       uint64
}

func holdingsOf(t *testing.T, db *DB) (h holdings) {
	t.Helper()
	view(t, db, func(tx *Tx) (err error) {
		collect := func(e error) {
			if err == nil {
				err = e
			}
		}
		var e error
		h.namespaces, e = tx.Namespaces().List()
		collect(e)
		h.containers, e = tx.Containers("ns").List()
		collect(e)
		h.images, e = tx.Images("ns").List()
		collect(e)
		h.blobs, e = tx.Content("ns").List()
		collect(e)
		h.leases, e = tx.Leases("ns").List()
		collect(e)
		for _, l := range h.leases {
			res, e := tx.Leases("ns").Resources(l.ID)
			collect(e)
			h.resources = append(h.resources, res...)
		}
		h.snapshots, e = tx.Snapshots("ns", "overlayfs").List()
		collect(e)
		return err
	})
	id, release := db.ReserveSnapshotID()
	release()
	h.next = id
	return h
}

// damages returns ways to damage a file: cut off anywhere, bytes altered anywhere.
func damages(whole []byte, n int) map[string][]byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	out := make(map[string][]byte)
	for _, size := range []int{0, 1, 100, 4096, 8192, 16384, len(whole) - 1, len(whole) / 2} {
		out[fmt.Sprint("cut at ", size)] = whole[:size]
	}
	for range n {
		broken := slices.Clone(whole)
		at := rnd.IntN(len(broken))
		switch rnd.IntN(5) {
		case 0:
			size := rnd.IntN(len(whole))
			out[fmt.Sprint("cut at ", size)] = whole[:size]
			continue
		case 1: // a run of bytes
			for i := at; i < min(at+512, len(broken)); i++ {
				broken[i] ^= 0xa5
			}
		case 2: // within a page's header and first entries
			at = at&^4095 + rnd.IntN(64)
			broken[at] ^= byte(1 << rnd.IntN(8))
		case 3:
			broken[at] = byte(rnd.IntN(256))
		default:
			broken[at] ^= byte(1 << rnd.IntN(8))
		}
		out[fmt.Sprintf("byte %d", at)] = broken
	}
	return out
}

// TestDamage_FoundOrHarmless damages a file in many ways. Each either is refused with an error that
// names the file and the way out, or does not change the content.
func TestDamage_FoundOrHarmless(t *testing.T) {
	whole, want := filled(t)
	path := filepath.Join(t.TempDir(), "meta.db")
	refused := 0
	for what, raw := range damages(whole, 500) {
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := OpenWith(path, Options{LockWait: time.Second})
		if err != nil {
			refused++
			if !errdefs.IsDataLoss(err) && !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), path) {
				t.Fatalf("%s: %v", what, err)
			}
			if errdefs.IsDataLoss(err) && reason.Of(err) != reason.MetadataDamaged {
				t.Fatalf("%s: no reason in: %v", what, err)
			}
			continue
		}
		if got := holdingsOf(t, db); !reflect.DeepEqual(got, want) {
			t.Fatalf("%s: the damage was not noticed", what)
		}
		err = db.Update(context.Background(), func(tx *Tx) error { return fillOne(tx, "new", 500) })
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Error("no damage was found")
	}
}

// TestDamageWhileOpen_Fails truncates the file of an open database.
func TestDamageWhileOpen_Fails(t *testing.T) {
	raw, _ := filled(t)
	path := filepath.Join(t.TempDir(), "meta.db")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 8192); err != nil {
		t.Fatal(err)
	}
	err = db.View(context.Background(), func(tx *Tx) error {
		_, err := tx.Containers("ns").List()
		return err
	})
	if !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	_ = db.Close()
}

// TestSalvage reads what is intact in damaged files: what it keeps is unchanged, what it lost is
// reported, and the result opens and has no findings.
func TestSalvage(t *testing.T) {
	whole, want := filled(t)
	dir := t.TempDir()
	path, into := filepath.Join(dir, "meta.db"), filepath.Join(dir, "new.db")
	for what, raw := range damages(whole, 80) {
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := Salvage(path, into)
		if errdefs.IsFailedPrecondition(err) {
			continue // it looks like one of a newer version
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if findings, err := Inspect(into); err != nil || len(findings) > 0 {
			t.Fatalf("%s: the new file: %v %v", what, findings, err)
		}
		db, err := Open(into)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got := holdingsOf(t, db)
		if len(out.Lost) == 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("%s: a record was lost and not reported", what)
		}
		for _, c := range got.containers {
			if !slices.ContainsFunc(want.containers, func(w Container) bool { return reflect.DeepEqual(c, w) }) {
				t.Fatalf("%s: container %s is not as it was", what, c.ID)
			}
		}
		for _, s := range got.snapshots {
			if s.ID >= got.next {
				t.Fatalf("%s: number %d would be given out again", what, s.ID)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if after, err := os.ReadFile(path); err != nil || !slices.Equal(after, raw) {
			t.Fatalf("%s: the damaged file was changed", what)
		}
		if err := os.Remove(into); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAdoptSnapshots_KeepsUnrecorded(t *testing.T) {
	db := openTest(t)
	update(t, db, func(tx *Tx) error { return fillOne(tx, "a", 3) })
	update(t, db, func(tx *Tx) error {
		adopted, err := tx.AdoptSnapshots("overlayfs", []uint64{3, 7})
		if !slices.Equal(adopted, []uint64{7}) {
			t.Errorf("adopted %v", adopted)
		}
		return err
	})
	live, err := db.LiveSnapshots(context.Background(), "overlayfs")
	if err != nil || !live(7) || !live(3) {
		t.Errorf("an adopted number is not live, or %v", err)
	}
}

func TestUnavailable_FailsEveryCall(t *testing.T) {
	db := Unavailable(fmt.Errorf("see cleat doctor: %w", errdefs.ErrDataLoss))
	ctx := context.Background()
	for what, err := range map[string]error{
		"view":   db.View(ctx, func(*Tx) error { return nil }),
		"update": db.Update(ctx, func(*Tx) error { return nil }),
	} {
		if !errdefs.IsDataLoss(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := db.LiveSnapshots(ctx, "overlayfs"); !errdefs.IsDataLoss(err) {
		t.Errorf("live snapshots: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
