package spec_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cleatproject/cleat/client/spec"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// accounts makes a root with a passwd and a group file.
func accounts(t *testing.T, passwd, group string) string {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"passwd": passwd, "group": group} {
		if text == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestLookupUser(t *testing.T) {
	root := accounts(t, strings.Join([]string{
		"root:x:0:0:root:/root:/bin/sh",
		"broken",
		"www:x:33:34::/var/www:/bin/sh",
		"7:x:0:0:a number for a name:/:/bin/sh",
		"huge:x:4294967296:0::/:/bin/sh",
	}, "\n"), "www:x:34:\nextra:x:44:other,www\nmore:x:45:www\nbroken:x\n")
	for user, want := range map[string]specs.User{
		"root":      {AdditionalGids: []uint32{0}},
		"www":       {UID: 33, GID: 34, AdditionalGids: []uint32{34, 44, 45}},
		"33":        {UID: 33, GID: 34, AdditionalGids: []uint32{34, 44, 45}},
		"7":         {UID: 7, AdditionalGids: []uint32{0}},
		"1000":      {UID: 1000, AdditionalGids: []uint32{0}},
		"www:extra": {UID: 33, GID: 44, AdditionalGids: []uint32{44}},
		"www:9":     {UID: 33, GID: 9, AdditionalGids: []uint32{9}},
		"5:6":       {UID: 5, GID: 6, AdditionalGids: []uint32{6}},
	} {
		if got, err := spec.LookupUser(root, user); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v; want %+v", user, got, err, want)
		}
	}
	for user, is := range map[string]func(error) bool{
		"nobody":                 errdefs.IsNotFound,
		"www:nobody":             errdefs.IsNotFound,
		"huge":                   errdefs.IsNotFound,
		"2147483648":             errdefs.IsInvalidArgument,
		"0:99999999999999999999": errdefs.IsInvalidArgument,
	} {
		if got, err := spec.LookupUser(root, user); !is(err) {
			t.Errorf("%s: got %+v, %v", user, got, err)
		}
	}
	if got, err := spec.LookupUser(t.TempDir(), "5"); err != nil || got.UID != 5 {
		t.Errorf("without files: got %+v, %v", got, err)
	}
}

// Links of the container must not lead to the host's files, and what is no file must not be waited
// for.
func TestLookupUserStaysInside(t *testing.T) {
	outside := accounts(t, "secret:x:1:1::/:\n", "")
	root := accounts(t, "", "")
	passwd := filepath.Join(root, "etc", "passwd")
	for name, place := range map[string]func() error{
		"absolute link": func() error { return os.Symlink(filepath.Join(outside, "etc", "passwd"), passwd) },
		"relative link": func() error {
			return os.Symlink(strings.Repeat("../", 20)+filepath.Join(outside, "etc", "passwd"), passwd)
		},
		"fifo":      func() error { return unix.Mkfifo(passwd, 0o600) },
		"directory": func() error { return os.Mkdir(passwd, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := place(); err != nil {
				t.Fatal(err)
			}
			if got, err := spec.LookupUser(root, "secret"); err == nil {
				t.Errorf("got %+v", got)
			}
			if err := os.Remove(passwd); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestLookupUserReadsABoundedFile(t *testing.T) {
	root := accounts(t, strings.Repeat("x:x:1:1::/:\n", 500_000)+"last:x:9:9::/:\n", "")
	if got, err := spec.LookupUser(root, "last"); !errdefs.IsNotFound(err) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func FuzzLookupUser(f *testing.F) {
	f.Add("root:x:0:0::/:\n", "g:x:1:root\n", "root:g")
	f.Fuzz(func(t *testing.T, passwd, group, user string) {
		if u, err := spec.LookupUser(accounts(t, passwd, group), user); err == nil && (u.UID > 1<<31-1 || u.GID > 1<<31-1) {
			t.Errorf("%q gives %+v", user, u)
		}
	})
}
