package boltfile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// sample is a file that bbolt wrote, with branches, nested and small buckets, long values and
// free pages, and what is in it.
func sample(t testing.TB) ([]byte, map[string]string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]string)
	put := func(tx *bolt.Tx, key, value string, names ...string) error {
		b, err := tx.CreateBucketIfNotExists([]byte(names[0]))
		for _, n := range names[1:] {
			if err == nil {
				b, err = b.CreateBucketIfNotExists([]byte(n))
			}
		}
		if err != nil {
			return err
		}
		want[strings.Join(names, "/")+"/"+key] = value
		return b.Put([]byte(key), []byte(value))
	}
	for round := range 5 {
		err := db.Update(func(tx *bolt.Tx) error {
			for i := range 300 {
				if err := put(tx, fmt.Sprintf("key%d-%d", round, i), strings.Repeat("v", i%100), "a", "deep"); err != nil {
					return err
				}
			}
			if err := put(tx, fmt.Sprint("long", round), strings.Repeat("x", 20000), "a"); err != nil {
				return err
			}
			return put(tx, "small", "1", "b", fmt.Sprint("inline", round))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw, want
}

func TestCheck_AcceptsFilesOfBbolt(t *testing.T) {
	raw, want := sample(t)
	got := make(map[string]string)
	buckets := 0
	err := Check(bytes.NewReader(raw), int64(len(raw)), Visitor{
		Bucket: func([]string) { buckets++ },
		Record: func(path []string, key, value []byte) {
			got[strings.Join(path, "/")+"/"+string(key)] = string(value)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) || buckets != 3+5 {
		t.Fatalf("%d records, want %d; %d buckets", len(got), len(want), buckets)
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s is %q", k, got[k])
		}
	}
}

// TestCheck_Loops_Ends makes branches point to themselves and to each other.
func TestCheck_Loops_Ends(t *testing.T) {
	raw, _ := sample(t)
	const pageSize = 4096
	for id := uint64(2); id < uint64(len(raw)/pageSize); id++ {
		page := raw[id*pageSize:]
		if binary.LittleEndian.Uint64(page) != id || binary.LittleEndian.Uint16(page[8:]) != flagBranch {
			continue
		}
		for _, target := range []uint64{id, 2, 3, id + 1} {
			looped := bytes.Clone(raw)
			binary.LittleEndian.PutUint64(looped[id*pageSize+headerSize+8:], target)
			_ = Check(bytes.NewReader(looped), int64(len(looped)), Visitor{}) // ends; the page may be a free one
		}
	}
}

// FuzzWalk alters a file at will: the walk ends, and does not panic.
func FuzzWalk(f *testing.F) {
	raw, _ := sample(f)
	f.Add(uint32(8192), []byte{1, 2, 3}, uint32(len(raw)))
	f.Add(uint32(4096+32), []byte{0xff}, uint32(5000))
	f.Fuzz(func(_ *testing.T, at uint32, b []byte, size uint32) {
		broken := bytes.Clone(raw)
		copy(broken[int(at)%len(broken):], b)
		broken = broken[:min(len(broken), int(size))]
		_ = Walk(bytes.NewReader(broken), int64(len(broken)), Visitor{
			Record: func([]string, []byte, []byte) {}, Problem: func([]string, error) {},
		})
	})
}
