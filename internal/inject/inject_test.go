package inject

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cleatproject/cleat/internal/durable"
)

// steps runs f on a disk whose n-th step fails, and returns the steps.
func steps(n int, fault error, f func(durable.Disk) error) ([]string, error) {
	var seen []string
	err := f(durable.On(FS{Under: durable.OS{}, At: func(op Op) error {
		seen = append(seen, op.Verb)
		if len(seen) == n {
			return fault
		}
		return nil
	}}))
	return seen, err
}

// If any step of a durable write fails, the old file or the new one exists,
// complete, and no temporary one.
func TestDurableWrite_EveryStepFails(t *testing.T) {
	fault := errors.New("fault")
	for name, c := range map[string]struct {
		want []string
		do   func(durable.Disk, string) error
	}{
		"WriteFile": {[]string{"create", "chmod", "write", "sync", "rename", "syncdir"}, func(d durable.Disk, path string) error {
			return d.WriteFile(path, []byte("new"), 0o600)
		}},
		"ReplaceUnsynced": {[]string{"create", "chmod", "write", "rename"}, func(d durable.Disk, path string) error {
			return d.ReplaceUnsynced(path, []byte("new"), 0o600)
		}},
		"RenameSynced": {[]string{"rename", "syncdir", "syncdir"}, func(d durable.Disk, path string) error {
			return d.RenameSynced(path+".d/other", path)
		}},
	} {
		for n := range len(c.want) + 1 {
			path := filepath.Join(t.TempDir(), "f")
			for p, text := range map[string]string{path: "old", path + ".d/other": "new"} {
				if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, []byte(text), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			seen, err := steps(n, fault, func(d durable.Disk) error { return c.do(d, path) })
			if n == 0 && (err != nil || !slices.Equal(seen, c.want)) {
				t.Errorf("%s: steps %q, %v, want %q", name, seen, err, c.want)
			}
			if n > 0 && !errors.Is(err, fault) {
				t.Errorf("%s, step %d: %v", name, n, err)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != "old" && string(got) != "new" {
				t.Errorf("%s, step %d: read %q, %v", name, n, got, err)
			}
			entries, err := os.ReadDir(filepath.Dir(path))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if strings.HasPrefix(e.Name(), durable.TempPrefix) {
					t.Errorf("%s, step %d: %s is left", name, n, e.Name())
				}
			}
		}
	}
}

func TestWrite_Failed_LeavesHalf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	fault := errors.New("fault")
	_, err := steps(2, fault, func(d durable.Disk) error {
		f, err := d.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		n, err := f.WriteAt([]byte("abcdef"), 0)
		if n != 3 {
			t.Errorf("%d bytes written", n)
		}
		return errors.Join(err, f.Close())
	})
	if got, rerr := os.ReadFile(path); !errors.Is(err, fault) || rerr != nil || string(got) != "abc" {
		t.Errorf("%v, %q, %v", err, got, rerr)
	}
}

func TestRemoveTree_RemovesNamedEntryFirst(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "data", "z"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fault := errors.New("fault")
	if _, err := steps(2, fault, func(d durable.Disk) error { return d.RemoveTree(dir, "data") }); !errors.Is(err, fault) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("data is left: %v", err)
	}
	for range 2 {
		if _, err := steps(0, nil, func(d durable.Disk) error { return d.RemoveTree(dir, "data") }); err != nil {
			t.Error(err)
		}
	}
}
