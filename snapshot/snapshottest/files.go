package snapshottest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/treecmp"
	"github.com/cleatproject/cleat/snapshot"
)

// object is a kind of file in a layer; make creates it at a path.
type object struct {
	name string
	make func(path string) error
	// linked marks one with several names.
	linked bool
}

// change is a change to an object in the layer above.
type change struct {
	name string
	// fits reports whether it applies to an object; nil means any.
	fits func(o object) bool
	do   func(path string) error
}

// when is the time of everything created here.
var when = time.Date(2001, 2, 3, 4, 5, 6, 123456789, time.UTC) //nolint:gochecknoglobals // a constant

func dated(path string) error {
	ts := unix.NsecToTimespec(when.UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

func file(text string, mode os.FileMode) func(string) error {
	return func(path string) error {
		return errors.Join(os.WriteFile(path, []byte(text), 0o600), unix.Chmod(path, uint32(mode)), dated(path))
	}
}

func node(mode uint32, dev uint64) func(string) error {
	return func(path string) error { return errors.Join(unix.Mknod(path, mode, int(dev)), dated(path)) }
}

// then runs steps in sequence.
func then(steps ...func(string) error) func(string) error {
	return func(path string) error {
		for _, f := range steps {
			if err := f(path); err != nil {
				return err
			}
		}
		return nil
	}
}

func xattr(name, value string) func(string) error {
	return func(path string) error { return unix.Lsetxattr(path, name, []byte(value), 0) }
}

func owned(uid, gid int) func(string) error {
	return func(path string) error { return os.Lchown(path, uid, gid) }
}

func mode(bits uint32) func(string) error {
	return func(path string) error { return unix.Chmod(path, bits) }
}

func makeDir(path string) error { return os.Mkdir(path, 0o755) }

func fullDir(path string) error {
	return errors.Join(os.Mkdir(path, 0o751), file("in", 0o644)(path+"/in"), os.MkdirAll(path+"/deep/er", 0o700),
		os.Symlink("../in", path+"/deep/link"), dated(path+"/deep/link"))
}

func sparse(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte("end"), 4<<20)
	return errors.Join(err, f.Close(), dated(path))
}

func pair(path string) error {
	return errors.Join(os.RemoveAll(path+"-too"), file("one file", 0o640)(path), os.Link(path, path+"-too"))
}

// objects returns one of every kind.
func objects() []object {
	return []object{
		{name: "file", make: file("text", 0o644)},
		{name: "empty file", make: file("", 0o600)},
		{name: "set-user-ID file", make: then(file("text", 0o644), owned(1, 2), mode(0o6755), dated)},
		{name: "owned file", make: then(file("text", 0o444), owned(1<<31, 1<<31+1), dated)},
		{name: "file with attributes", make: then(file("text", 0o644), xattr("user.a", "b"), xattr("user.empty", ""), dated)},
		{name: "file with capabilities", make: then(file("text", 0o755), xattr("security.capability", "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), dated)},
		{name: "sparse file", make: sparse},
		{name: "directory", make: makeDir},
		{name: "sticky directory", make: then(makeDir, mode(0o1777))},
		{name: "full directory", make: fullDir},
		{name: "symbolic link", make: then(func(p string) error { return os.Symlink("/etc/../"+strings.Repeat("t", 200), p) }, dated)},
		{name: "owned symbolic link", make: then(func(p string) error { return os.Symlink("nowhere", p) }, owned(7, 8), dated)},
		{name: "hard links", make: pair, linked: true},
		{name: "FIFO", make: then(node(unix.S_IFIFO|0o620, 0), owned(3, 4), dated)},
		{name: "socket", make: node(unix.S_IFSOCK|0o600, 0)},
		{name: "character device", make: node(unix.S_IFCHR|0o666, unix.Mkdev(1, 3))},
		{name: "block device", make: node(unix.S_IFBLK|0o660, unix.Mkdev(7, 9))},
	}
}

func removed(path string) error { return os.RemoveAll(path) }

func isFile(o object) bool { return strings.Contains(o.name, "file") }

func isDir(o object) bool { return strings.Contains(o.name, "directory") }

// changes are the changes to an object, in the layer above or in the same.
func changes() []change {
	list := []change{
		{name: "kept", do: func(string) error { return nil }},
		{name: "deleted", do: removed},
		{name: "deleted with its directory", do: func(p string) error { return os.RemoveAll(filepath.Dir(p)) }},
		{name: "directory made anew", do: func(p string) error {
			return errors.Join(os.RemoveAll(filepath.Dir(p)), os.Mkdir(filepath.Dir(p), 0o711))
		}},
		{name: "mode changed", fits: func(o object) bool { return !o.linked && !strings.Contains(o.name, "link") }, do: mode(0o700)},
		{name: "owner changed", fits: func(o object) bool { return !o.linked }, do: owned(11, 12)},
		{name: "appended to", fits: isFile, do: func(p string) error {
			f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("more")
			return errors.Join(err, f.Close(), dated(p))
		}},
		{name: "cut short", fits: isFile, do: then(func(p string) error { return os.Truncate(p, 1) }, dated)},
		{name: "attribute set", fits: func(o object) bool { return isFile(o) || isDir(o) }, do: xattr("user.new", "v")},
		{name: "renamed", fits: func(o object) bool { return !isDir(o) && !o.linked }, do: func(p string) error { return unix.Rename(p, p+"-renamed") }},
		{name: "filled", fits: isDir, do: func(p string) error { return file("new", 0o644)(p + "/new") }},
	}
	for _, o := range objects() {
		list = append(list, change{name: "replaced by " + o.name, do: then(removed, o.make)})
	}
	return list
}

// names are the paths of an object.
func names() map[string]string {
	return map[string]string{
		"plain":     "d/x",
		"long name": "d/" + strings.Repeat("n", 200),
		"odd bytes": "d/a\nb\xff\x01 '\"\\:,=é",
		"deep":      "d/" + strings.Repeat("deep/", 40) + "x",
	}
}

// filesAreExact creates every object in one layer, makes every change in the next, and compares
// a view of both with the same done in a plain directory.
func filesAreExact(t *testing.T, s *suite) {
	for i, o := range objects() {
		for _, c := range changes() {
			if c.fits != nil && !c.fits(o) {
				continue
			}
			path := "d/x"
			if c.name == "kept" || c.name == "deleted" {
				for n, p := range names() {
					t.Run(o.name+"/"+c.name+"/"+n, func(t *testing.T) { s.exact(t, uint64(10*i+1), o, c, p) })
				}
				continue
			}
			t.Run(o.name+"/"+c.name, func(t *testing.T) { s.exact(t, uint64(10*i+1), o, c, path) })
		}
	}
}

func (s *suite) exact(t *testing.T, id uint64, o object, c change, path string) {
	first := func(dir string) error {
		return errors.Join(os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o755),
			file("neighbour", 0o644)(filepath.Join(dir, "d/neighbour")), o.make(filepath.Join(dir, path)))
	}
	second := func(dir string) error { return c.do(filepath.Join(dir, path)) }
	s.with(t, func() {
		s.prepare(id, nil, snapshot.KindActive)
		s.change(id, nil, first)
		s.prepare(id+1, []uint64{id}, snapshot.KindActive)
		s.change(id+1, []uint64{id}, second)
		s.prepare(id+2, []uint64{id + 1, id}, snapshot.KindView)
		plain := t.TempDir()
		if err := errors.Join(os.Chmod(plain, 0o755), first(plain), second(plain)); err != nil {
			t.Fatal(err)
		}
		s.mounted(id+2, []uint64{id + 1, id}, snapshot.KindView, func(dir string) { treecmp.Compare(t, dir, plain) })
		for _, n := range []uint64{id + 2, id + 1, id} {
			if err := s.d.Remove(context.Background(), n); err != nil {
				t.Error(err)
			}
		}
	})
}

// with reports the suite's failures to t while f runs.
func (s *suite) with(t *testing.T, f func()) {
	outer := s.t
	s.t = t
	defer func() { s.t = outer }()
	f()
}

// change runs f in an active snapshot, and commits it.
func (s *suite) change(id uint64, parents []uint64, f func(dir string) error) {
	s.t.Helper()
	s.mounted(id, parents, snapshot.KindActive, func(dir string) {
		if err := f(dir); err != nil {
			s.t.Fatal(err)
		}
	})
	if _, err := s.d.Commit(context.Background(), id); err != nil {
		s.t.Fatal(err)
	}
}
