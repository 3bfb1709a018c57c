package metadata

import (
	"bytes"
	"errors"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/snapshot"
)

// futureField is a field that no version knows.
func futureField() []byte {
	return protowire.AppendString(protowire.AppendTag(nil, 900, protowire.BytesType), "from the future")
}

// fullRecords are records that use every field, and the values that are easily lost: the start of 1970, times before
// it, empty messages, empty texts in maps, fields of a later version.
type fullRecords struct {
	namespace Namespace
	container Container
	sandbox   Sandbox
	image     Image
	lease     Lease
	blob      Blob
	snapshot  Snapshot
	event     events.Event
}

func fixtureFull() fullRecords {
	epoch, before, after := time.Unix(0, 0).UTC(), time.Unix(-5, 7).UTC(), time.Unix(1_800_000_000, 9).UTC()
	labels, extensions := map[string]string{"b": "2", "a": "1", "c": "3"}, map[string]Any{"x": {"t", []byte("v")}, "empty": {}}
	d := digest.FromString("full")
	return fullRecords{
		namespace: Namespace{Name: "full", Labels: labels, unknown: futureField()},
		container: Container{
			ID: "full", Labels: labels, Image: "image", Runtime: Runtime{"runtime", &Any{}}, Spec: &Any{"spec", []byte{0, 255}},
			Snapshotter: "overlayfs", SnapshotKey: "full", CreatedAt: epoch, UpdatedAt: before, Extensions: extensions,
			SandboxID: "full", unknown: futureField(),
		},
		sandbox: Sandbox{
			ID: "full", Runtime: Runtime{"runtime", &Any{"options", []byte("o")}}, Spec: &Any{}, Labels: labels,
			CreatedAt: after, UpdatedAt: epoch, Extensions: extensions, Sandboxer: "shim", unknown: futureField(),
		},
		image: Image{
			Name: "full", Labels: labels, Target: ocispec.Descriptor{
				MediaType: "type", Digest: d, Size: 1 << 40, Annotations: map[string]string{"k": "v", "empty": ""}, URLs: []string{"u1", "u2"},
				ArtifactType: "artifact",
				Platform:     &ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7", OSVersion: "1", OSFeatures: []string{"f1", "f2"}},
			}, CreatedAt: epoch, UpdatedAt: after, unknown: futureField(),
		},
		lease: Lease{ID: "full", Labels: labels, CreatedAt: before, unknown: futureField()},
		blob:  Blob{Digest: d, Size: 1 << 41, Labels: labels, CreatedAt: after, UpdatedAt: before, unknown: futureField()},
		snapshot: Snapshot{
			Key: "full", Parent: "layer", Kind: snapshot.KindView, ID: 8, Labels: labels, CreatedAt: after, UpdatedAt: epoch,
			Size: -1, Inodes: 1 << 33, unknown: futureField(),
		},
		event: events.Event{Sequence: 4, Timestamp: after, Namespace: "default", Topic: "/topic", TypeURL: "type", Value: []byte{0, 1}},
	}
}

// fullIngest is the record of an upload as versions before 1.0 could have it.
const fullIngest = "\n\x04full\x12Gsha256:a18b869b2e81c0c529552a3c4fa5c92ed08b98a4e146aed778d71d27517f83ac\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" +
	"!\t\x00\xb4\x93v\xe2\xfa\x18\xa28\x0ffrom the future"

// writeV2 writes a database as version 2 does, with more than version 1 could hold.
func writeV2(path string) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{FreelistType: bolt.FreelistMapType})
	if err != nil {
		return err
	}
	r := fixtureFull()
	at := func(noun ...string) bucketPath { return append(bucketPath{"namespaces", "full"}, noun...) }
	records := append(fixtureRecords(),
		fixtureRecord{at(), "info", encodeNamespace(&r.namespace)},
		fixtureRecord{at("containers"), "full", encodeContainer(&r.container)},
		fixtureRecord{at("sandboxes"), "full", encodeSandbox(&r.sandbox)},
		fixtureRecord{at("images"), "full", encodeImage(&r.image)},
		fixtureRecord{at("leases"), "full", encodeLease(&r.lease)},
		fixtureRecord{at("blobs"), r.blob.Digest.String(), encodeBlob(&r.blob)},
		fixtureRecord{at("ingests"), "full", []byte(fullIngest)},
		fixtureRecord{at("snapshots", "overlayfs"), "layer", encodeSnapshot(&Snapshot{Key: "layer", Kind: snapshot.KindCommitted, ID: 7})},
		fixtureRecord{at("snapshots", "overlayfs"), "full", encodeSnapshot(&r.snapshot)},
		fixtureRecord{at("children", "overlayfs"), "layer\x00full", nil},
		fixtureRecord{bucketPath{"outbox"}, "\x00\x00\x00\x00\x00\x00\x00\x04", encodeEvent(&r.event)},
	)
	for i, r := range records {
		records[i].record = scopeOf(r.in...).seal(r.key, r.record)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		return errors.Join(
			putAll(tx, records, map[string][]byte{"schema": {0, 0, 0, 0, 0, 0, 0, 2}}),
			putSequence(tx.Bucket([]byte("cleat")), 9))
	})
	return errors.Join(err, db.Close())
}

// same reports what differs between a record and what it should be.
func same[T any](t *testing.T, got T, err error, want T) {
	t.Helper()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

// TestFixtures_FullRecords reads the committed database of this version, in which every field is used.
func TestFixtures_FullRecords(t *testing.T) {
	db, err := Open(copyFixture(t, 2))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	want := fixtureFull()
	view(t, db, func(tx *Tx) error {
		namespace, err := tx.Namespaces().Get("full")
		same(t, namespace, err, want.namespace)
		container, err := tx.Containers("full").Get("full")
		same(t, container, err, want.container)
		sandbox, err := tx.Sandboxes("full").Get("full")
		same(t, sandbox, err, want.sandbox)
		image, err := tx.Images("full").Get("full")
		same(t, image, err, want.image)
		lease, err := tx.Leases("full").Get("full")
		same(t, lease, err, want.lease)
		blob, err := tx.Content("full").Get(want.blob.Digest)
		same(t, blob, err, want.blob)
		snap, err := tx.Snapshots("full", "overlayfs").Stat("full")
		same(t, snap, err, want.snapshot)
		event := events.Event{Sequence: want.event.Sequence}
		key := "\x00\x00\x00\x00\x00\x00\x00\x04"
		raw, err := scopeOf(outboxBucket).open(key, tx.root.Bucket([]byte(outboxBucket)).Get([]byte(key)))
		same(t, event, errors.Join(err, decodeEvent(raw, &event)), want.event)
		return nil
	})
}

// A record is written as the same bytes as when the fixture was created. The exception is the image: the fixture omits
// the empty value of an annotation.
func TestFixtures_AreReproduced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	if err := writeV2(path); err != nil {
		t.Fatal(err)
	}
	committed, written := allRecords(t, copyFixture(t, 2)), allRecords(t, path)
	for at, record := range committed {
		if at != "cleat/namespaces/full/images/full" && !bytes.Equal(record, written[at]) {
			t.Errorf("%q: got %x, want %x", at, written[at], record)
		}
	}
	if len(committed) != len(written) || len(committed) < 20 {
		t.Errorf("got %d records, want %d", len(written), len(committed))
	}
}

// allRecords returns every record of a file by its place.
func allRecords(t *testing.T, path string) map[string][]byte {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	out := make(map[string][]byte)
	var walk func(at string, b *bolt.Bucket) error
	walk = func(at string, b *bolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error {
			if v == nil {
				return walk(at+"/"+string(k), b.Bucket(k))
			}
			out[at+"/"+string(k)] = bytes.Clone(v)
			return nil
		})
	}
	err = db.View(func(tx *bolt.Tx) error { return walk("cleat", tx.Bucket([]byte("cleat"))) })
	if err != nil {
		t.Fatal(err)
	}
	return out
}
