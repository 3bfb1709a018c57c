package service

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const passwd = `# accounts
root:x:0:0:root:/root:/bin/sh
web:x:1000:1001::/:/bin/sh
1234:x:77:78:digits as a name::
huge:x:4294967296:5:::
high:x:2147483648:5:::
short:x:5
`

const group = `root:x:0:
wheel:x:10:root,web
staff:x:50:web
web:x:1001:web
huge:x:99999999999:
`

// rootWith makes a root file system with account files.
func rootWith(t *testing.T, passwd, group string) string {
	t.Helper()
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "etc"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "etc/passwd"), []byte(passwd), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "etc/group"), []byte(group), 0o644))
	return root
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestResolveUser(t *testing.T) {
	root := rootWith(t, passwd, group)
	for user, want := range map[string]*identity{
		"":           {groups: []uint32{0, 10}},
		"root":       {groups: []uint32{0, 10}},
		"0":          {groups: []uint32{0, 10}},
		"web":        {uid: 1000, gid: 1001, groups: []uint32{1001, 10, 50}},
		"1000":       {uid: 1000, gid: 1001, groups: []uint32{1001, 10, 50}},
		"web:staff":  {uid: 1000, gid: 50, groups: []uint32{50}},
		"web:7":      {uid: 1000, gid: 7, groups: []uint32{7}},
		"1234":       {uid: 1234, groups: []uint32{0}}, // a number is never looked up as a name
		"5000:6000":  {uid: 5000, gid: 6000, groups: []uint32{6000}},
		"2147483647": {uid: 2147483647, groups: []uint32{0}},
	} {
		got, err := resolveUser(t.Context(), nil, root, user)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v; want %+v", user, got, err, want)
		}
	}
	for user, is := range map[string]func(error) bool{
		"nobody":               errdefs.IsNotFound,
		"web:nobody":           errdefs.IsNotFound,
		"web:":                 errdefs.IsInvalidArgument,
		"huge":                 errdefs.IsInvalidArgument,
		"high":                 errdefs.IsInvalidArgument,
		"2147483648":           errdefs.IsInvalidArgument,
		"4294967296":           errdefs.IsInvalidArgument,
		"99999999999999999999": errdefs.IsInvalidArgument,
		"web:4294967296":       errdefs.IsInvalidArgument,
		"web:huge":             errdefs.IsInvalidArgument,
	} {
		if got, err := resolveUser(t.Context(), nil, root, user); !is(err) {
			t.Errorf("%q: %+v, %v", user, got, err)
		}
	}
}

func TestResolveUserWithoutAccountFiles(t *testing.T) {
	root := t.TempDir()
	got, err := resolveUser(t.Context(), nil, root, "12:34")
	if want := (&identity{uid: 12, gid: 34, groups: []uint32{34}}); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatal(got, err)
	}
	if _, err := resolveUser(t.Context(), nil, root, "web"); !errdefs.IsNotFound(err) {
		t.Fatal(err)
	}
}

// TestHostileAccountFiles: links that lead outside, devices that block, files without end.
func TestHostileAccountFiles(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "passwd")
	must(t, os.WriteFile(outside, []byte("evil:x:0:0:::\n"), 0o644))
	for name, plant := range map[string]func(path string) error{
		"absolute link": func(path string) error { return os.Symlink(outside, path) },
		"relative link": func(path string) error { return os.Symlink("../../../../.."+outside, path) },
		"magic link":    func(path string) error { return os.Symlink("/proc/self/cwd/passwd", path) },
		"fifo":          func(path string) error { return unix.Mkfifo(path, 0o644) },
		"directory":     func(path string) error { return os.Mkdir(path, 0o755) },
		"endless line": func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat("x", 100<<10)), 0o644)
		},
		"gigantic": func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat("a:x:1:1:::\n", 1<<20)), 0o644)
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			must(t, os.Mkdir(filepath.Join(root, "etc"), 0o755))
			must(t, plant(filepath.Join(root, "etc/passwd")))
			if got, err := resolveUser(t.Context(), nil, root, "evil"); err == nil {
				t.Fatalf("resolved to %+v", got)
			}
		})
	}
}

func FuzzAccountFiles(f *testing.F) {
	f.Add(passwd, group, "web:staff")
	f.Add("a:b:c:d", ":::", "0")
	f.Fuzz(func(t *testing.T, passwd, group, user string) {
		who, err := resolveUser(t.Context(), nil, rootWith(t, passwd, group), user)
		if err == nil && (who.uid > maxID || who.gid > maxID) {
			t.Fatalf("%q gave %+v", user, who)
		}
	})
}
