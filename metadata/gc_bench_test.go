package metadata

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/snapshot"
)

// benchObjects is how many objects the benchmarks' database holds, roughly.
const benchObjects = 100_000

// fillYard records images of ten layers each, with their snapshots; of garbage in a hundred
// the image's name is missing.
func fillYard(b *testing.B, db *DB, garbage int) {
	b.Helper()
	ctx := context.Background()
	const layers = 10
	images := benchObjects / (3 + 2*layers)
	put := func(fn func(tx *Tx) error) {
		if err := db.Update(ctx, fn); err != nil {
			b.Fatal(err)
		}
	}
	put(func(tx *Tx) error { return tx.Namespaces().Create("ns", nil) })
	for from := 0; from < images; from += 100 {
		put(func(tx *Tx) error {
			for i := from; i < min(from+100, images); i++ {
				if err := fillImage(tx, i, layers, i%100 >= garbage); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func fillImage(tx *Tx, i, layers int, named bool) error {
	blob := func(what string, l map[string]string) (digest.Digest, error) {
		d := digest.FromString(fmt.Sprint(what, i))
		_, err := tx.Content("ns").Create(Blob{Digest: d, Size: 1 << 20, Labels: l})
		return d, err
	}
	parent := ""
	refs := map[string]string{"containerd.io/distribution.source.docker.io": "library/something"}
	snaps := tx.Snapshots("ns", "overlayfs")
	for l := range layers {
		d, err := blob(fmt.Sprint("layer", l, "-"), map[string]string{"containerd.io/uncompressed": "sha256:0123456789012345678901234567890123456789"})
		if err != nil {
			return err
		}
		refs[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", l)] = d.String()
		key := digest.FromString(fmt.Sprint("chain", i, "-", l)).String()
		if _, err := snaps.Create(Snapshot{Key: key + "a", Parent: parent, Kind: snapshot.KindActive, ID: uint64(i*layers + l + 1)}); err != nil {
			return err
		}
		if _, err := snaps.Commit(key, key+"a", snapshot.Usage{Size: 1}, nil); err != nil {
			return err
		}
		parent = key
	}
	config, err := blob("config", map[string]string{"containerd.io/gc.ref.snapshot.overlayfs": parent})
	if err != nil {
		return err
	}
	refs["containerd.io/gc.ref.content.config"] = config.String()
	manifest, err := blob("manifest", refs)
	if err != nil || !named {
		return err
	}
	v := target("x")
	v.Digest = manifest
	_, err = tx.Images("ns").Create(Image{Name: fmt.Sprint("image", i), Target: v})
	return err
}

// BenchmarkCollectNothing reads 100,000 objects that are all in use.
func BenchmarkCollectNothing(b *testing.B) {
	db, err := Open(filepath.Join(b.TempDir(), "meta.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	fillYard(b, db, 0)
	b.ReportAllocs()
	var c Collection
	for b.Loop() {
		if c, err = db.Collect(context.Background(), CollectOptions{}); err != nil || len(c.Removed) != 0 {
			b.Fatal(len(c.Removed), err)
		}
	}
	b.ReportMetric(float64(c.Objects), "objects")
	b.ReportMetric(float64(c.Marking.Microseconds())/1e3, "mark-ms")
	b.ReportMetric(float64(c.Pause.Microseconds())/1e3, "pause-ms")
}

// BenchmarkCollectTenth reads 100,000 objects and deletes a tenth of them.
func BenchmarkCollectTenth(b *testing.B) {
	b.ReportAllocs()
	var last Collection
	for b.Loop() {
		b.StopTimer()
		db, err := Open(filepath.Join(b.TempDir(), "meta.db"))
		if err != nil {
			b.Fatal(err)
		}
		fillYard(b, db, 10)
		b.StartTimer()
		if last, err = db.Collect(context.Background(), CollectOptions{}); err != nil || len(last.Removed) == 0 {
			b.Fatal(len(last.Removed), err)
		}
		b.StopTimer()
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(last.Objects), "objects")
	b.ReportMetric(float64(len(last.Removed)), "removed")
	b.ReportMetric(float64(last.Marking.Microseconds())/1e3, "mark-ms")
	b.ReportMetric(float64(last.Pause.Microseconds())/1e3, "pause-ms")
	b.ReportMetric(float64(last.Paused.Microseconds())/1e3, "paused-ms")
}
