// Package treecmp compares directories in tests, with everything that a file system stores of a file.
package treecmp

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/xattr"
)

// Compare fails the test if two trees differ.
func Compare(t *testing.T, got, want string) {
	t.Helper()
	g, w := Describe(t, got), Describe(t, want)
	for _, path := range slices.Sorted(maps.Keys(w)) {
		if g[path] != w[path] {
			t.Errorf("%q is\n %q, want\n %q", path, g[path], w[path])
		}
	}
	for path := range g {
		if _, ok := w[path]; !ok {
			t.Errorf("unexpected %q: %s", path, g[path])
		}
	}
}

// Describe returns all attributes of every file in a tree, by its path from the root. It omits the
// times of directories, which depend on the changes in them and their order.
func Describe(t *testing.T, root string) map[string]string {
	t.Helper()
	tree := make(map[string]string)
	first := make(map[[2]uint64]string) // path by device and inode
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		st := fi.Sys().(*syscall.Stat_t)
		text := fmt.Sprintf("mode %o, owner %d:%d", st.Mode, st.Uid, st.Gid)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			sum, err := hashOf(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(", %d bytes %x", st.Size, sum)
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " to " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			text += fmt.Sprintf(", device %d", st.Rdev)
		}
		if !fi.IsDir() {
			text += fmt.Sprintf(", modified %d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
			if other, ok := first[[2]uint64{st.Dev, st.Ino}]; ok && st.Nlink > 1 {
				text += ", the same as " + other
			}
			first[[2]uint64{st.Dev, st.Ino}] = name
		}
		attrs, err := attributes(path)
		if err != nil {
			return err
		}
		tree[name] = text + attrs
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func hashOf(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	return h.Sum(nil), errors.Join(err, f.Close())
}

func attributes(path string) (string, error) {
	all := func(string) bool { return true }
	attrs, err := xattr.Read(xattr.Path{Name: path}, make([]byte, xattr.BufferSize), all)
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		fmt.Fprintf(&text, ", %s=%q", name, attrs[name])
	}
	return text.String(), err
}
