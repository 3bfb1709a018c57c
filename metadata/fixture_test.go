package metadata

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/cleatproject/cleat/snapshot"
)

// fixturesEnv names a directory into which TestFixtures writes the databases of every
// version that it knows how to write: CLEAT_WRITE_FIXTURES=testdata go test -run Fixtures.
// A version's file is written once and then stays: it holds what was written then.
const fixturesEnv = "CLEAT_WRITE_FIXTURES"

// bucketPath is a bucket below the top one, by the names of its path.
type bucketPath = []string

// writeV1 writes a database as version 1 did: records without seals, a bare sequence, no
// outbox.
func writeV1(path string) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{FreelistType: bolt.FreelistMapType})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		return putAll(tx, fixtureRecords(), map[string][]byte{
			"schema": {0, 0, 0, 0, 0, 0, 0, 1}, "sequence": {0, 0, 0, 0, 0, 0, 0, 9},
		})
	})
	return errors.Join(err, db.Close())
}

func putAll(tx *bolt.Tx, records []fixtureRecord, top map[string][]byte) error {
	root, err := tx.CreateBucketIfNotExists([]byte("cleat"))
	if err != nil {
		return err
	}
	for k, v := range top {
		if err := root.Put([]byte(k), v); err != nil {
			return err
		}
	}
	for _, r := range records {
		b := root
		for _, name := range r.in {
			if b, err = b.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		if err := b.Put([]byte(r.key), r.record); err != nil {
			return err
		}
	}
	return nil
}

// fixtureRecord is a record without its seal.
type fixtureRecord struct {
	in     bucketPath
	key    string
	record []byte
}

func fixtureContainer() Container {
	return Container{
		ID: "web", Labels: map[string]string{"a.b/c": "1"}, Image: "docker.io/library/busybox:latest",
		Runtime: Runtime{"io.containerd.cleat.v2", &Any{"opts", []byte{1, 0, 2}}},
		Spec:    &Any{"spec", []byte("{}")}, Snapshotter: "overlayfs", SnapshotKey: "web",
		CreatedAt: time.Unix(1_700_000_000, 5).UTC(), UpdatedAt: time.Unix(1_700_000_001, 6).UTC(),
		Extensions: map[string]Any{"x": {"t", []byte("v")}}, SandboxID: "pod",
	}
}

func fixtureRecords() []fixtureRecord {
	at := func(noun ...string) bucketPath { return append(bucketPath{"namespaces", "default"}, noun...) }
	c := fixtureContainer()
	d := digest.FromString("blob")
	return []fixtureRecord{
		{at(), "info", encodeNamespace(&Namespace{Name: "default", Labels: map[string]string{"l": "v"}})},
		{bucketPath{"namespaces", "empty"}, "info", encodeNamespace(&Namespace{Name: "empty"})},
		{at("containers"), c.ID, encodeContainer(&c)},
		{at("images"), c.Image, encodeImage(&Image{Name: c.Image, Target: target("m"), CreatedAt: c.CreatedAt})},
		{at("leases"), "lease", encodeLease(&Lease{ID: "lease", CreatedAt: c.CreatedAt})},
		{at("resources"), "lease\x00content\x00" + d.String(), nil},
		{at("blobs"), d.String(), encodeBlob(&Blob{Digest: d, Size: 4, CreatedAt: c.CreatedAt})},
		{at("ingests"), "ref", []byte("\n\x03ref\x18\a!\x05\x00*6\xfe\x9c\x97\x17")},
		{at("snapshots", "overlayfs"), "layer", encodeSnapshot(&Snapshot{Key: "layer", Kind: snapshot.KindCommitted, ID: 3, Size: 8})},
		{at("snapshots", "overlayfs"), "web", encodeSnapshot(&Snapshot{Key: "web", Parent: "layer", Kind: snapshot.KindActive, ID: 9})},
		{at("children", "overlayfs"), "layer\x00web", nil},
	}
}

// expectFixture checks that a database holds what the fixtures hold.
func expectFixture(t *testing.T, db *DB) {
	t.Helper()
	view(t, db, func(tx *Tx) error {
		c, err := tx.Containers("default").Get("web")
		if want := fixtureContainer(); !reflect.DeepEqual(c, want) {
			t.Errorf("container %+v, want %+v", c, want)
		}
		img, err2 := tx.Images("default").List("target.digest==" + digest.FromString("m").String())
		res, err3 := tx.Leases("default").Resources("lease")
		blob, err4 := tx.Content("default").Get(digest.FromString("blob"))
		ids, err5 := tx.Snapshots("default", "overlayfs").ParentIDs("layer")
		ns, err6 := tx.Namespaces().List()
		if len(img) != 1 || len(res) != 1 || blob.Size != 4 || len(ids) != 1 || ids[0] != 3 || len(ns) < 2 {
			t.Errorf("images %v, resources %v, blob %v, parents %v, namespaces %v", img, res, blob, ids, ns)
		}
		return errors.Join(err, err2, err3, err4, err5, err6)
	})
	refused(t, db, errdefs.IsFailedPrecondition, func(tx *Tx) error {
		_, err := tx.Snapshots("default", "overlayfs").Remove("layer") // the child link holds it
		return err
	})
	if id, release := db.ReserveSnapshotID(); id != 10 {
		t.Errorf("next snapshot number %d, want 10", id)
	} else {
		release()
	}
}

// TestFixtures opens a database of every version, twice: once to migrate it, once as it is then.
func TestFixtures(t *testing.T) {
	if dir := os.Getenv(fixturesEnv); dir != "" {
		if err := errors.Join(writeV1(filepath.Join(dir, "v1.db")), writeV2(filepath.Join(dir, "v2.db"))); err != nil {
			t.Fatal(err)
		}
	}
	for version := 1; version <= schemaVersion; version++ {
		path := copyFixture(t, version)
		for range 2 {
			db, err := Open(path)
			if err != nil {
				t.Fatalf("version %d: %v", version, err)
			}
			expectFixture(t, db)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if findings, err := Inspect(path); err != nil || len(findings) > 0 {
			t.Errorf("version %d after its migration: %v %v", version, findings, err)
		}
	}
}

func copyFixture(t *testing.T, version int) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", fmt.Sprintf("v%d.db", version)))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "meta.db")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestGenerator_WritesFixture keeps the generator equal to the committed file.
func TestGenerator_WritesFixture(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	if err := writeV1(path); err != nil {
		t.Fatal(err)
	}
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	expectFixture(t, db)
}

func TestMigration_Failed_FileUnchanged(t *testing.T) {
	path := copyFixture(t, 1)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	_, err = openWith(path, Options{}, append(migrations(), migration{schemaVersion, "fail", func(*bolt.Bucket) error { return boom }}))
	if !errors.Is(err, boom) || !strings.Contains(err.Error(), path) {
		t.Fatalf("got %v", err)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(after) != string(before) {
		t.Error("the file changed")
	}
	db, err := Open(path) // and the next start succeeds
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	expectFixture(t, db)
}

func TestOpen_NewerSchema_FileUnchanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	nothing := func(*bolt.Bucket) error { return nil }
	db, err := openWith(path, Options{}, append(migrations(), migration{schemaVersion, "nothing", nothing}))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(path)
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "newer") {
		t.Errorf("got %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the file changed, or %v", err)
	}
}

// Databases may hold records of uploads, which no version reads any more: they keep nothing, and do not interfere.
func TestIngestRecords_AreIgnored(t *testing.T) {
	y := newYard(t)
	y.blob("ns", "a", nil)
	y.update(func(tx *Tx) error {
		b, err := tx.namespaces().Bucket([]byte("ns")).CreateBucketIfNotExists([]byte("ingests"))
		if err != nil {
			return err
		}
		return b.Put([]byte("ref"), scopeOf("namespaces", "ns", "ingests").seal("ref", []byte(fullIngest)))
	})
	y.collect(CollectOptions{})
	if left := y.left("ns", "a"); len(left) != 0 {
		t.Errorf("left is %q", left)
	}
	y.update(func(tx *Tx) error { return tx.Namespaces().Delete("ns") })
}
