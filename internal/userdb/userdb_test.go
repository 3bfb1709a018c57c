package userdb_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/userdb"
	"github.com/cleatproject/cleat/proto/reason"
)

const passwd = `# accounts:x:0:0
  root:x:0:0:root:/root:/bin/sh

broken
short:x:5
words:x:five:six:::
empty:x:::::
+::::::
web:x:1000:1001::/:/bin/sh
web:x:0:0:a second entry::
other:x:1000:0:the same id::
1234:x:77:78:digits as a name::
high:x:2147483648:5:::
high-group:x:5:2147483648:::
round:x:4294967296:4294967296:::
endless:x:99999999999999999999:5:::
minus:x:-1:-1:::
bare:x:6:7
last:x:8:9:::`

const group = `root:x:0:
# comment:x:0:web
broken
wheel:x:10:root,web
words:x:ten:web
staff:x:50:web
staff:x:51:
twice:x:50:web
web:x:1001:web
high:x:2147483648:web
round:x:4294967296:web
minus:x:-5:web
1234:x:79:
tail:x:60:other,webber,last`

// open returns a root file system with account files; a file whose text is empty is missing.
func open(t *testing.T, passwd, group string) *os.File {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "etc"), 0o755))
	for name, text := range map[string]string{"passwd": passwd, "group": group} {
		if text != "" {
			must(t, os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644))
		}
	}
	return openDir(t, dir)
}

func openDir(t *testing.T, dir string) *os.File {
	t.Helper()
	root, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	t.Cleanup(func() { must(t, root.Close()) })
	return root
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestLookup(t *testing.T) {
	root := open(t, passwd, group)
	web := userdb.Identity{UID: 1000, GID: 1001, Groups: []uint32{1001, 10, 50}}
	for spec, want := range map[string]userdb.Identity{
		"":           {Groups: []uint32{0, 10}},
		"root":       {Groups: []uint32{0, 10}},
		"0":          {Groups: []uint32{0, 10}},
		"00":         {Groups: []uint32{0, 10}},
		":staff":     {GID: 50, Groups: []uint32{50}},
		":7":         {GID: 7, Groups: []uint32{7}},
		"0:0":        {Groups: []uint32{0}},
		"web":        web,
		"1000":       web,
		"web:staff":  {UID: 1000, GID: 50, Groups: []uint32{50}},
		"web:7":      {UID: 1000, GID: 7, Groups: []uint32{7}},
		"web:1234":   {UID: 1000, GID: 1234, Groups: []uint32{1234}},
		"1000:staff": {UID: 1000, GID: 50, Groups: []uint32{50}},
		"other":      {UID: 1000, Groups: []uint32{0, 60}},
		"bare":       {UID: 6, GID: 7, Groups: []uint32{7}},
		"last":       {UID: 8, GID: 9, Groups: []uint32{9, 60}},
		"1234":       {UID: 1234, Groups: []uint32{0}}, // a number is never looked up as a name
		"5000":       {UID: 5000, Groups: []uint32{0}},
		"5000:staff": {UID: 5000, GID: 50, Groups: []uint32{50}},
		"5000:6000":  {UID: 5000, GID: 6000, Groups: []uint32{6000}},
		"2147483647": {UID: userdb.MaxID, Groups: []uint32{0}},
	} {
		if got, err := userdb.Lookup(root, spec); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, %v; want %+v", spec, got, err, want)
		}
	}
}

func TestLookup_Fails(t *testing.T) {
	root := open(t, passwd, group)
	for _, spec := range []string{
		"nobody", "web:nobody", "5000:nobody", "broken", "short", "words", "empty", "+", "# accounts", "#", "web:words",
		"web:broken", "web:# comment", "web:staff:x", "Web", "we", " web", " 0", "0x0", "0.", "we\x00b", "web\n",
	} {
		if got, err := userdb.Lookup(root, spec); !errdefs.IsNotFound(err) || reason.Of(err) != reason.UserNotFound {
			t.Errorf("%q: got %+v, %v", spec, got, err)
		}
	}
	for _, spec := range []string{
		"web:", ":", "0:", "-1", "-1:0", "0:-1", "high", "high-group", "round", "endless", "minus", "web:high", "web:round",
		"web:minus", "2147483648", "4294967295", "4294967296", "99999999999999999999", "-99999999999999999999",
		"web:2147483648", "web:4294967296", "web:99999999999999999999",
	} {
		if got, err := userdb.Lookup(root, spec); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: got %+v, %v", spec, got, err)
		}
	}
}

func TestLookup_WithoutFiles(t *testing.T) {
	for name, root := range map[string]*os.File{
		"no files": open(t, "", ""), "empty files": open(t, "\n", "\n"), "no directory": openDir(t, t.TempDir()),
	} {
		for spec, want := range map[string]userdb.Identity{
			"": {Groups: []uint32{0}}, "12:34": {UID: 12, GID: 34, Groups: []uint32{34}}, "12": {UID: 12, Groups: []uint32{0}},
		} {
			if got, err := userdb.Lookup(root, spec); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s, %q: got %+v, %v; want %+v", name, spec, got, err, want)
			}
		}
		for _, spec := range []string{"root", "0:root"} {
			if got, err := userdb.Lookup(root, spec); !errdefs.IsNotFound(err) {
				t.Errorf("%s, %q: got %+v, %v", name, spec, got, err)
			}
		}
	}
}

// Links that lead outside, devices that block, files without end.
func TestLookup_HostileFile(t *testing.T) {
	const evil = "evil:x:0:0:evil\n"
	outside := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(outside, []byte(evil), 0o644))
	for name, plant := range map[string]func(path string) error{
		"absolute link": func(path string) error { return os.Symlink(outside, path) },
		"relative link": func(path string) error { return os.Symlink(strings.Repeat("../", 20)+outside, path) },
		"magic link":    func(path string) error { return os.Symlink("/proc/self/cwd/file", path) },
		"loop":          func(path string) error { return os.Symlink(path, path) },
		"fifo":          func(path string) error { return unix.Mkfifo(path, 0o644) },
		"directory":     func(path string) error { return os.Mkdir(path, 0o755) },
		"long line": func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat("x", 2<<20)+":x:1:1:\n"+evil), 0o644)
		},
		"long file": func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat("a:x:1:1:::\n", 1<<20)+evil), 0o644)
		},
		"sparse file": func(path string) error {
			return errors.Join(os.WriteFile(path, []byte(evil), 0o644), os.Truncate(path, 1<<40))
		},
	} {
		t.Run(name, func(t *testing.T) {
			for file, spec := range map[string]string{"passwd": "evil", "group": "0:evil"} {
				dir := t.TempDir()
				must(t, os.Mkdir(filepath.Join(dir, "etc"), 0o755))
				path := filepath.Join(dir, "etc", file)
				must(t, plant(path))
				root := openDir(t, dir)
				if got, err := userdb.Lookup(root, spec); err == nil {
					t.Errorf("%s: got %+v", file, got)
				}
			}
		})
	}
}

// A link to a file inside is followed, as the processes of the container follow it.
func TestLookup_LinkInside(t *testing.T) {
	root := open(t, "", group)
	must(t, os.Mkdir(filepath.Join(root.Name(), "usr"), 0o755))
	must(t, os.WriteFile(filepath.Join(root.Name(), "usr/passwd"), []byte(passwd), 0o644))
	must(t, os.Symlink("/usr/passwd", filepath.Join(root.Name(), "etc/passwd")))
	if got, err := userdb.Lookup(root, "bare"); err != nil || got.UID != 6 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// The group file is not read if the ids do not depend on it.
func TestLookup_UnneededFile(t *testing.T) {
	root := open(t, passwd, "")
	must(t, os.Mkdir(filepath.Join(root.Name(), "etc/group"), 0o755))
	if got, err := userdb.Lookup(root, "5000"); err != nil || got.UID != 5000 {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := userdb.Lookup(root, "web"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// The memory of a lookup is bounded however many entries match.
func TestLookup_Memory(t *testing.T) {
	root := open(t, strings.Repeat("a::1:1\n", 1<<16), manyGroups(1<<16))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	who, err := userdb.Lookup(root, "a")
	must(t, err)
	runtime.ReadMemStats(&after)
	if allocated := (after.TotalAlloc - before.TotalAlloc) >> 20; allocated > 160 || len(who.Groups) != 1<<16 {
		t.Errorf("allocated %d MiB for %d groups", allocated, len(who.Groups))
	}
	root = open(t, "a::1:1\n", manyGroups(1<<16+1))
	if _, err := userdb.Lookup(root, "a"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("more entries: %v", err)
	}
}

// manyGroups returns a group file in which each of n groups lists the user a.
func manyGroups(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "::%d:a\n", i+1)
	}
	return b.String()
}

func FuzzLookup(f *testing.F) {
	f.Add(passwd, group, "web:staff")
	f.Add("a:b:c:d", ":::", "0")
	f.Fuzz(func(t *testing.T, passwd, group, spec string) {
		who, err := userdb.Lookup(open(t, passwd, group), spec)
		if err == nil && (who.UID > userdb.MaxID || who.GID > userdb.MaxID || len(who.Groups) == 0 || who.Groups[0] != who.GID) {
			t.Errorf("%q: got %+v", spec, who)
		}
	})
}
