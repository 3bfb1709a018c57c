package xattr_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/xattr"
)

func all(string) bool          { return true }
func never(string, error) bool { return false }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// file creates a file with attributes.
func file(t *testing.T, path string, attrs map[string]string) xattr.Path {
	t.Helper()
	must(t, os.WriteFile(path, nil, 0o600))
	for name, value := range attrs {
		must(t, unix.Setxattr(path, name, []byte(value), 0))
	}
	return xattr.Path{Name: path}
}

func read(t *testing.T, p xattr.Path) map[string]string {
	t.Helper()
	got, err := xattr.Read(p, make([]byte, xattr.BufferSize), all)
	must(t, err)
	return got
}

func TestReadCopyRemove(t *testing.T) {
	dir, buf := t.TempDir(), make([]byte, xattr.BufferSize)
	want := map[string]string{"user.empty": "", "user.bytes": "\x00\xff", "trusted.long": strings.Repeat("x", 2000)}
	from, to := file(t, dir+"/from", want), file(t, dir+"/to", map[string]string{"user.own": "kept"})
	if got := read(t, from); !maps.Equal(got, want) {
		t.Errorf("read %q", got)
	}
	if got := read(t, file(t, dir+"/none", nil)); got != nil {
		t.Errorf("read %q of a file without", got)
	}
	must(t, xattr.Copy(from, to, buf, func(name string) bool { return name != "user.empty" }, never))
	copied := map[string]string{"user.own": "kept", "user.bytes": want["user.bytes"], "trusted.long": want["trusted.long"]}
	if got := read(t, to); !maps.Equal(got, copied) {
		t.Errorf("copied %q", got)
	}
	must(t, xattr.Remove(to, buf, func(name string) bool { return strings.HasPrefix(name, "user.") }, never))
	if got := read(t, to); len(got) != 1 || got["trusted.long"] == "" {
		t.Errorf("left: %q", got)
	}
}

func TestLinksAndDescriptors(t *testing.T) {
	dir, buf := t.TempDir(), make([]byte, xattr.BufferSize)
	target := file(t, dir+"/target", map[string]string{"trusted.a": "target's"})
	link := xattr.Path{Name: filepath.Join(dir, "link")}
	must(t, os.Symlink("target", link.Name))
	if got := read(t, link); got != nil {
		t.Errorf("the link was followed: %q", got)
	}
	must(t, link.Set("trusted.a", []byte("link's")))
	if got := read(t, target)["trusted.a"]; got != "target's" {
		t.Errorf("the link was followed: %q", got)
	}
	f, err := os.Open(target.Name)
	must(t, err)
	defer func() { must(t, f.Close()) }()
	to := file(t, dir+"/to", nil)
	must(t, xattr.Copy(xattr.Path{Name: fmt.Sprint("/proc/self/fd/", f.Fd()), Follow: true}, to, buf, all, never))
	must(t, xattr.Remove(link, buf, all, never))
	if got := read(t, to)["trusted.a"]; got != "target's" || read(t, target) == nil || read(t, link) != nil {
		t.Errorf("copied %q, target has %q, link has %q", got, read(t, target), read(t, link))
	}
}

func TestCopy_IgnoresPermittedErrors(t *testing.T) {
	dir, buf := t.TempDir(), make([]byte, xattr.BufferSize)
	from := file(t, dir+"/from", map[string]string{"user.a": "a", "trusted.b": "b"})
	to := xattr.Path{Name: dir + "/to"}
	must(t, os.Symlink("nowhere", to.Name)) // on which user.* is not permitted
	if err := xattr.Copy(from, to, buf, all, never); !errors.Is(err, unix.EPERM) {
		t.Errorf("got %v", err)
	}
	lost := func(name string, err error) bool { return name == "user.a" && errors.Is(err, unix.EPERM) }
	must(t, xattr.Copy(from, to, buf, all, lost))
	if got := read(t, to); !maps.Equal(got, map[string]string{"trusted.b": "b"}) {
		t.Errorf("copied %q", got)
	}
	missing := xattr.Path{Name: dir + "/missing"}
	if _, err := xattr.Read(missing, buf, all); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}
