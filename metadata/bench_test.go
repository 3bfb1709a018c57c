package metadata

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/snapshot"
)

// many is how many containers the lists of the benchmarks hold.
const many = 10_000

// benchContainer has the size of a real one: a spec of 4 KiB and some labels.
func benchContainer(i int) Container {
	return Container{
		ID: fmt.Sprintf("container-%06d", i), Image: fmt.Sprintf("docker.io/library/image-%d:latest", i%50),
		Labels:  map[string]string{"app": fmt.Sprint("app-", i%100), "io.kubernetes.pod.name": "pod", "tier": "web"},
		Runtime: Runtime{Name: "io.containerd.cleat.v2"}, Snapshotter: "overlayfs", SnapshotKey: fmt.Sprint(i),
		Spec: &Any{"types.containerd.io/opencontainers/runtime-spec/1/Spec", []byte(strings.Repeat("spec", 1024))},
	}
}

func openBench(b *testing.B, opts Options, containers int) *DB {
	b.Helper()
	db, err := OpenWith(filepath.Join(b.TempDir(), "meta.db"), opts)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	err = db.Update(context.Background(), func(tx *Tx) error {
		errs := tx.Namespaces().Create("ns", nil)
		for i := range containers {
			_, err := tx.Containers("ns").Create(benchContainer(i))
			errs = errors.Join(errs, err)
		}
		return errs
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	return db
}

func BenchmarkCreate(b *testing.B) {
	db := openBench(b, Options{}, 0)
	for i := 0; b.Loop(); i++ {
		err := db.Update(context.Background(), func(tx *Tx) error {
			_, err := tx.Containers("ns").Create(benchContainer(i))
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreateWithEvent is BenchmarkCreate with an event in the outbox: what that costs.
func BenchmarkCreateWithEvent(b *testing.B) {
	log, err := events.Open(filepath.Join(b.TempDir(), "events"), events.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = log.Close() })
	db := openBench(b, Options{Outlet: log}, 0)
	for i := 0; b.Loop(); i++ {
		err := db.Update(context.Background(), func(tx *Tx) error {
			if _, err := tx.Containers("ns").Create(benchContainer(i)); err != nil {
				return err
			}
			return tx.Publish("ns", "/containers/create", Any{"containerd.events.ContainerCreate", make([]byte, 80)})
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreateShared has 64 writers at a time, which share commits.
func BenchmarkCreateShared(b *testing.B) {
	db := openBench(b, Options{}, 0)
	var next atomic.Int64
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			err := db.Update(context.Background(), func(tx *Tx) error {
				_, err := tx.Containers("ns").Create(benchContainer(int(next.Add(1))))
				return err
			})
			if err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkUpdate(b *testing.B) {
	db := openBench(b, Options{}, many)
	for i := 0; b.Loop(); i++ {
		err := db.Update(context.Background(), func(tx *Tx) error {
			_, err := tx.Containers("ns").Update(Container{ID: benchContainer(i % many).ID, Labels: map[string]string{"app": "new"}}, "labels.app")
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	db := openBench(b, Options{}, many)
	for b.Loop() {
		err := db.View(context.Background(), func(tx *Tx) error {
			_, err := tx.Containers("ns").Get("container-004711")
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkList lists 10,000 containers, by filters that let through all, some, one or none.
func BenchmarkList(b *testing.B) {
	for name, filter := range map[string][]string{
		"all": nil, "id": {"id==container-004711"}, "label": {`labels."app"==app-7`}, "image": {"image==docker.io/library/image-7:latest"},
		"none": {"labels.nothing"}, "regexp": {"id~=-0047.."},
	} {
		b.Run(name, func(b *testing.B) {
			db := openBench(b, Options{}, many)
			for b.Loop() {
				err := db.View(context.Background(), func(tx *Tx) error {
					_, err := tx.Containers("ns").List(filter...)
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkListThousand lists 1,000 containers, as a busy host has.
func BenchmarkListThousand(b *testing.B) {
	db := openBench(b, Options{}, 1_000)
	for b.Loop() {
		err := db.View(context.Background(), func(tx *Tx) error {
			_, err := tx.Containers("ns").List()
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRecord encodes and decodes one record of a noun, without the database.
func BenchmarkRecord(b *testing.B) {
	c, i, s := benchContainer(1), Image{Name: "docker.io/library/a:latest", Target: target("x"), CreatedAt: time.Unix(1, 2).UTC()}, Snapshot{
		Key: "sha256:0123456789", Parent: "sha256:abcdef", Kind: snapshot.KindCommitted, ID: 7, Size: 4096, CreatedAt: time.Unix(1, 2).UTC(),
		Labels: map[string]string{"containerd.io/snapshot.ref": "sha256:0123456789"},
	}
	benchRecord(b, "container", &c, encodeContainer, decodeContainer)
	benchRecord(b, "image", &i, encodeImage, decodeImage)
	benchRecord(b, "snapshot", &s, encodeSnapshot, decodeSnapshot)
}

func benchRecord[T any](b *testing.B, noun string, v *T, encode func(*T) []byte, decode func([]byte, *T) error) {
	b.Run("encode "+noun, func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			scopeOf().seal("key", encode(v))
		}
	})
	raw := encode(v)
	b.Run("decode "+noun, func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var out T
			if err := decode(raw, &out); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkOpen opens, and so checks, a database of 10,000 containers.
func BenchmarkOpen(b *testing.B) {
	db := openBench(b, Options{}, many)
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		again, err := Open(db.path)
		if err != nil {
			b.Fatal(err)
		}
		if err := again.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
