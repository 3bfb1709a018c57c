package metadata

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"

	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/internal/filters"
	"github.com/cleatproject/cleat/snapshot"
)

// The functions below return the fields of decoded records: what the columns must agree with.

func mapField(path []string, name string, m map[string]string) (string, bool) {
	if len(path) < 2 || path[0] != name {
		return "", false
	}
	v, ok := m[strings.Join(path[1:], ".")]
	return v, ok
}

func containerFields(v Container) filters.AdaptorFunc {
	return func(path []string) (string, bool) {
		switch path[0] {
		case "id":
			return v.ID, true
		case "image":
			return v.Image, v.Image != ""
		case "snapshotter":
			return v.Snapshotter, v.Snapshotter != ""
		case "snapshotkey":
			return v.SnapshotKey, v.SnapshotKey != ""
		case "sandboxid":
			return v.SandboxID, v.SandboxID != ""
		case "runtime":
			if len(path) == 2 && path[1] == "name" {
				return v.Runtime.Name, true
			}
			return "", false
		}
		return mapField(path, "labels", v.Labels)
	}
}

func imageFields(v Image) filters.AdaptorFunc {
	return func(path []string) (string, bool) {
		switch strings.Join(path, ".") {
		case "name":
			return v.Name, true
		case "target.digest":
			return v.Target.Digest.String(), true
		case "target.mediatype":
			return v.Target.MediaType, true
		}
		if path[0] == "annotations" {
			return mapField(path, "annotations", v.Target.Annotations)
		}
		return mapField(path, "labels", v.Labels)
	}
}

func snapshotFields(v Snapshot) filters.AdaptorFunc {
	return func(path []string) (string, bool) {
		switch path[0] {
		case "name":
			return v.Key, true
		case "parent":
			return v.Parent, v.Parent != ""
		case "kind":
			return v.Kind.String(), true
		}
		return mapField(path, "labels", v.Labels)
	}
}

func blobFields(v Blob) filters.AdaptorFunc {
	return func(path []string) (string, bool) {
		switch path[0] {
		case "digest":
			return v.Digest.String(), true
		case "size":
			return strconv.FormatInt(v.Size, 10), true
		}
		return mapField(path, "labels", v.Labels)
	}
}

// TestList_AgreesWithFullScan compares filtered lists, which read bytes and keys, with all records
// decoded and matched one by one, for random filters and records.
func TestList_AgreesWithFullScan(t *testing.T) {
	db := openTest(t)
	rnd := rand.New(rand.NewPCG(3, 4))
	word := func() string { return []string{"", "a", "b", "a.b", "c-1", "io.x/y"}[rnd.IntN(6)] }
	labels := func() map[string]string {
		m := make(map[string]string)
		for range rnd.IntN(4) {
			m["k"+word()] = word()
		}
		return m
	}
	update(t, db, func(tx *Tx) error {
		var errs error
		for i := range 60 {
			id := fmt.Sprint("c", i)
			c := Container{ID: id, Runtime: Runtime{Name: "r" + word()}, Image: word(), Labels: labels(), SandboxID: word(), Spec: &Any{"spec", []byte("{}")}}
			if rnd.IntN(2) == 0 {
				c.Snapshotter, c.SnapshotKey = "s"+word(), word()
			}
			_, err1 := tx.Containers("ns").Create(c)
			img := Image{Name: id, Labels: labels(), Target: target(word())}
			img.Target.Annotations = labels()
			_, err2 := tx.Images("ns").Create(img)
			_, err3 := tx.Snapshots("ns", "overlayfs").Create(Snapshot{Key: id, Kind: []snapshot.Kind{snapshot.KindActive, snapshot.KindView}[rnd.IntN(2)], ID: uint64(i + 1), Labels: labels()})
			_, err4 := tx.Content("ns").Create(Blob{Digest: digest.FromString(id), Size: int64(rnd.IntN(3)), Labels: labels()})
			errs = errors.Join(errs, err1, err2, err3, err4)
		}
		return errs
	})
	fields := []string{
		"id", "image", "name", "runtime.name", "runtime", "snapshotter", "snapshotkey", "sandboxid", "labels.ka", "labels.k", `labels."ka.b"`,
		`labels.ka.b`, "labels", "target.digest", "target.mediatype", "annotations.ka", "parent", "kind", "digest", "size", "nothing",
	}
	values := []string{"a", "b", "c1", "c17", `""`, `"a.b"`, "ra", "1", "active", digest.FromString("c3").String(), digest.FromString("a").String()}
	selector := func() string {
		f := fields[rnd.IntN(len(fields))]
		if op := []string{"", "==", "!=", "~=", "==", "=="}[rnd.IntN(6)]; op != "" {
			return f + op + values[rnd.IntN(len(values))]
		}
		return f
	}
	for range 2000 {
		var texts []string
		for range 1 + rnd.IntN(2) {
			text := selector()
			for range rnd.IntN(2) {
				text += "," + selector()
			}
			texts = append(texts, text)
		}
		view(t, db, func(tx *Tx) error {
			return errors.Join(
				agree(t, tx.Containers("ns").List, containerFields, texts),
				agree(t, tx.Images("ns").List, imageFields, texts),
				agree(t, tx.Snapshots("ns", "overlayfs").List, snapshotFields, texts),
				agree(t, tx.Content("ns").List, blobFields, texts))
		})
	}
}

func agree[T any](t *testing.T, list func(...string) ([]T, error), fields func(T) filters.AdaptorFunc, texts []string) error {
	t.Helper()
	match, err := filters.ParseAll(texts...)
	if err != nil {
		return err
	}
	every, err := list()
	if err != nil {
		return err
	}
	var want []T
	for _, v := range every {
		if match.Match(fields(v)) {
			want = append(want, v)
		}
	}
	got, err := list(texts...)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q: %d records, want %d", texts, len(got), len(want))
	}
	return err
}

// TestReaders_DoNotWaitForWriters reads during an unfinished update.
func TestReaders_DoNotWaitForWriters(t *testing.T) {
	db := openTest(t)
	inside, leave := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- db.Update(context.Background(), func(tx *Tx) error {
			_, err := tx.Images("ns").Create(Image{Name: "i", Target: target("x")})
			close(inside)
			<-leave
			return err
		})
	}()
	<-inside
	view(t, db, func(tx *Tx) error { // hangs if it waits
		list, err := tx.Images("ns").List()
		if len(list) != 0 {
			t.Error("a reader sees what is not committed")
		}
		return err
	})
	close(leave)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestWriters_ShareCommits counts transactions: one for a single update, and few for many that
// arrive during another.
func TestWriters_ShareCommits(t *testing.T) {
	db := openTest(t)
	commits := func() int {
		id := 0
		view(t, db, func(tx *Tx) error { id = tx.bolt.ID(); return nil })
		return id
	}
	before := commits()
	update(t, db, func(tx *Tx) error {
		_, err := tx.Images("ns").Create(Image{Name: "alone", Target: target("x")})
		return errors.Join(err, fillOne(tx, "more", 1))
	})
	if n := commits() - before; n != 1 {
		t.Errorf("an update took %d commits", n)
	}
	inside, leave := make(chan struct{}), make(chan struct{})
	errs := make(chan error, 101)
	go func() {
		errs <- db.Update(context.Background(), func(*Tx) error { close(inside); <-leave; return nil })
	}()
	<-inside
	before = commits()
	for i := range 100 {
		go func() {
			errs <- db.Update(context.Background(), func(tx *Tx) error {
				_, err := tx.Images("ns").Create(Image{Name: fmt.Sprint("i", i), Target: target("x")})
				return err
			})
		}()
	}
	for queued := 0; queued < 100; { // until all wait
		runtime.Gosched()
		db.mu.Lock()
		queued = len(db.waiting)
		db.mu.Unlock()
	}
	close(leave)
	for range 101 {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	if n := commits() - before; n != 2 {
		t.Errorf("101 updates took %d commits, want 2", n)
	}
}
