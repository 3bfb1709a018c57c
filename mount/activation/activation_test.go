package activation_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/mount/activation"
)

// bench is a Manager with a directory of its own files, and checks at the end that nothing is left.
type bench struct {
	*testing.T
	base, own string
	*activation.Manager
}

func open(t *testing.T) *bench {
	t.Helper()
	base := t.TempDir()
	b := &bench{T: t, base: filepath.Join(base, "m"), own: filepath.Join(base, "own")}
	must(t, os.Mkdir(b.own, 0o700))
	b.reopen()
	t.Cleanup(func() {
		for _, a := range b.List("") {
			must(t, b.Deactivate(context.Background(), a.Namespace, a.Name))
		}
		left, err := os.ReadDir(b.base)
		if err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
		points, err := mount.Under(base)
		if err != nil || len(points) > 0 {
			t.Errorf("mounted still: %q, %v", points, err)
		}
		detached(t, b.own)
	})
	return b
}

// reopen simulates a restart of the daemon.
func (b *bench) reopen() {
	b.Helper()
	m, err := activation.Open(b.base, b.own)
	must(b.T, err)
	b.Manager = m
}

// devices returns the loop devices of files below a directory.
func devices(t *testing.T, dir string) (list []string) {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	must(t, err)
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err == nil && strings.HasPrefix(string(data), dir+"/") {
			list = append(list, string(data))
		}
	}
	return list
}

// detached waits until no file below a directory has a loop device. One stays until the last mount namespace
// with its file system is gone, and a container that is created concurrently begins with a copy of this one.
func detached(t *testing.T, dir string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); len(devices(t, dir)) > 0; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("still there: %q", devices(t, dir))
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// see attaches the returned mounts, and calls f with the directory.
func (b *bench) see(a activation.Activation, f func(root string)) {
	b.Helper()
	root := b.TempDir()
	must(b.T, mount.All(a.System, root))
	defer func() { must(b.T, mount.UnmountAll(root, 0)) }()
	f(root)
}

// writable is a list of mounts that needs all features of a Manager: a file system in a file, directories
// in that, and an overlay of these.
func (b *bench) writable(image string) []mount.Mount {
	lower := filepath.Join(b.own, "lower")
	must(b.T, os.MkdirAll(lower, 0o755))
	must(b.T, os.WriteFile(filepath.Join(lower, "f"), []byte("below"), 0o644))
	return []mount.Mount{
		{Type: "mkfs/loop", Source: filepath.Join(b.own, image), Options: []string{"X-containerd.mkfs.size=64MiB", "X-containerd.mkfs.fs=ext4", "X-containerd.mkfs.uuid=550e8400-e29b-41d4-a716-446655440000"}},
		{Type: "format/ext4", Source: "{{ source 0 }}"},
		{Type: "bind", Source: lower, Options: []string{"ro", "bind"}},
		{Type: "format/mkdir/overlay", Source: "overlay", Options: []string{
			"X-containerd.mkdir.path={{ mount 1 }}/upper:0755", "X-containerd.mkdir.path={{ mount 1 }}/work:0711:1000:1001",
			"lowerdir={{ overlay 2 2 }}", "upperdir={{ mount 1 }}/upper", "workdir={{ mount 1 }}/work",
		}},
	}
}

func TestActivate_WritableImage(t *testing.T) {
	b := open(t)
	a, err := b.Activate(t.Context(), "ns", "w", b.writable("disk.img"), activation.Options{Labels: map[string]string{"a": "b"}, Lease: "l"})
	must(t, err)
	if len(a.Active) != 3 || len(a.System) != 1 || a.System[0].Type != "overlay" {
		t.Fatalf("activated %+v", a)
	}
	if device, err := os.Readlink(a.Active[0].Point); err != nil || device != a.Active[0].Source || !strings.HasPrefix(device, "/dev/loop") {
		t.Errorf("the device is %q, %v", device, err)
	}
	if slices.ContainsFunc(a.System[0].Options, func(o string) bool { return strings.Contains(o, "{{") || strings.HasPrefix(o, "X-") }) {
		t.Errorf("options %q", a.System[0].Options)
	}
	info, err := os.Stat(filepath.Join(a.Active[1].Point, "work"))
	if err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("work directory: %v, %v", info, err)
	}
	b.see(a, func(root string) {
		if data, err := os.ReadFile(filepath.Join(root, "f")); err != nil || string(data) != "below" {
			t.Errorf("%q, %v", data, err)
		}
		must(t, os.WriteFile(filepath.Join(root, "g"), []byte("above"), 0o600))
	})
	if _, err := b.Activate(t.Context(), "ns", "w", b.writable("disk.img"), activation.Options{}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("activated twice: %v", err)
	}
	if _, err := b.Info("other", "w"); !errdefs.IsNotFound(err) {
		t.Errorf("seen from another namespace: %v", err)
	}

	b.reopen()
	again, err := b.Info("ns", "w")
	must(t, err)
	if fmt.Sprint(again) != fmt.Sprint(a) {
		t.Errorf("after a restart\n%v, before\n%v", again, a)
	}
	must(t, b.Deactivate(t.Context(), "ns", "w"))
	if err := b.Deactivate(t.Context(), "ns", "w"); !errdefs.IsNotFound(err) {
		t.Errorf("deactivated twice: %v", err)
	}
	detached(t, b.own)
	// The data is in the file, which is reused the next time.
	a, err = b.Activate(t.Context(), "ns", "w", b.writable("disk.img"), activation.Options{Temporary: true})
	must(t, err)
	if len(a.Active) != 4 || len(a.System) != 1 || a.System[0].Type != "bind" {
		t.Errorf("temporary: %+v", a)
	}
	b.see(a, func(root string) {
		if data, err := os.ReadFile(filepath.Join(root, "g")); err != nil || string(data) != "above" {
			t.Errorf("%q, %v", data, err)
		}
	})
}

func TestActivate_Temporary_NestsMounts(t *testing.T) {
	b := open(t)
	dir := filepath.Join(b.own, "d")
	must(t, os.MkdirAll(filepath.Join(dir, "in"), 0o700))
	a, err := b.Activate(t.Context(), "ns", "t", []mount.Mount{
		{Type: "bind", Source: dir, Options: []string{"rbind"}},
		{Type: "tmpfs", Source: "tmpfs", Target: "in"},
	}, activation.Options{Temporary: true})
	must(t, err)
	b.see(a, func(root string) {
		must(t, os.WriteFile(filepath.Join(root, "in", "x"), nil, 0o600))
	})
	if left, err := os.ReadDir(filepath.Join(dir, "in")); err != nil || len(left) > 0 {
		t.Errorf("written below the tmpfs: %v, %v", left, err)
	}
}

func TestSetLabels(t *testing.T) {
	b := open(t)
	tmp := []mount.Mount{{Type: "tmpfs", Source: "tmpfs"}}
	_, err := b.Activate(t.Context(), "ns", "a", tmp, activation.Options{Temporary: true, Labels: map[string]string{"x": "1"}})
	must(t, err)
	_, err = b.Activate(t.Context(), "ns2", "a", tmp, activation.Options{Temporary: true})
	must(t, err)
	_, err = b.SetLabels(t.Context(), "ns", "a", func(m map[string]string) map[string]string { m["y"] = "2"; return m })
	must(t, err)
	b.reopen()
	list := b.List("ns")
	if len(list) != 1 || list[0].Labels["x"] != "1" || list[0].Labels["y"] != "2" || len(b.List("")) != 2 {
		t.Errorf("listed %+v", list)
	}
}

// They are refused with nothing left, which the bench checks.
func TestActivate_RefusesBadMounts(t *testing.T) {
	b := open(t)
	must(t, os.WriteFile(filepath.Join(b.own, "plain"), make([]byte, 1<<20), 0o600))
	must(t, os.Symlink("/etc", filepath.Join(b.own, "link")))
	loop := func(options ...string) mount.Mount {
		return mount.Mount{Type: "mkfs/loop", Source: filepath.Join(b.own, "new.img"), Options: options}
	}
	mkdir := func(what string) []mount.Mount {
		return []mount.Mount{{Type: "mkdir/bind", Source: b.own, Options: []string{"X-containerd.mkdir.path=" + what}}}
	}
	for name, tt := range map[string]struct {
		mounts []mount.Mount
		is     func(error) bool
	}{
		"none":                        {nil, errdefs.IsInvalidArgument},
		"plain":                       {[]mount.Mount{{Type: "bind", Source: b.own}}, errdefs.IsNotImplemented},
		"another transform":           {[]mount.Mount{{Type: "shout/bind", Source: b.own}, {Type: "loop", Source: "x"}}, errdefs.IsInvalidArgument},
		"no type":                     {[]mount.Mount{{Type: "format/", Source: b.own}}, errdefs.IsInvalidArgument},
		"no such mount":               {[]mount.Mount{{Type: "format/bind", Source: "{{ mount 0 }}"}}, errdefs.IsInvalidArgument},
		"bad template":                {[]mount.Mount{{Type: "format/bind", Source: "{{ mount"}}, errdefs.IsInvalidArgument},
		"endless template":            {[]mount.Mount{{Type: "format/bind", Source: `{{ define "a" }}xxxxxxxxxxxxxxxx{{ template "a" }}{{ end }}{{ template "a" }}`}}, errdefs.IsInvalidArgument},
		"only a device":               {[]mount.Mount{{Type: "loop", Source: filepath.Join(b.own, "plain")}}, errdefs.IsInvalidArgument},
		"no file":                     {[]mount.Mount{{Type: "loop", Source: filepath.Join(b.own, "absent")}, {Type: "format/ext4", Source: "{{ source 0 }}"}}, isNotExist},
		"no file system in it":        {[]mount.Mount{{Type: "loop", Source: filepath.Join(b.own, "plain")}, {Type: "format/ext4", Source: "{{ source 0 }}"}, {Type: "format/bind", Source: "{{ mount 1 }}"}}, isError},
		"mkfs without a size":         {[]mount.Mount{loop()}, errdefs.IsInvalidArgument},
		"mkfs of a bad size":          {[]mount.Mount{loop("X-containerd.mkfs.size=-1")}, errdefs.IsInvalidArgument},
		"mkfs of another kind":        {[]mount.Mount{loop("X-containerd.mkfs.size=64MiB", "X-containerd.mkfs.fs=ntfs")}, errdefs.IsInvalidArgument},
		"mkfs with a bad uuid":        {[]mount.Mount{loop("X-containerd.mkfs.size=64MiB", "X-containerd.mkfs.uuid=--help")}, errdefs.IsInvalidArgument},
		"mkfs with another option":    {[]mount.Mount{loop("X-containerd.mkfs.magic=1")}, errdefs.IsInvalidArgument},
		"mkfs too small":              {[]mount.Mount{loop("X-containerd.mkfs.size=1KiB")}, isError},
		"mkdir elsewhere":             {mkdir("/etc/x"), errdefs.IsInvalidArgument},
		"mkdir through a link":        {mkdir(b.own + "/link/x"), errdefs.IsFailedPrecondition},
		"mkdir without a parent":      {mkdir(b.own + "/a/b/c"), errdefs.IsFailedPrecondition},
		"mkdir by ..":                 {mkdir(b.own + "/../x"), errdefs.IsInvalidArgument},
		"mkdir with a bad mode":       {mkdir(b.own + "/x:9"), errdefs.IsInvalidArgument},
		"mkdir with half an owner":    {mkdir(b.own + "/x:700:1"), errdefs.IsInvalidArgument},
		"mkdir with a negative owner": {mkdir(b.own + "/x:700:-1:0"), errdefs.IsInvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := b.Activate(t.Context(), "ns", "bad", tt.mounts, activation.Options{})
			if !tt.is(err) {
				t.Errorf("%v", err)
			}
			if left, err := os.ReadDir(b.base); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
			detached(t, b.own)
		})
	}
	if _, err := os.Lstat("/etc/x"); err == nil {
		t.Error("/etc/x was created")
	}
	left, err := filepath.Glob(filepath.Join(b.own, ".mkfs-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left by mkfs: %q, %v", left, err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Activate(canceled, "ns", "late", b.writable("late.img"), activation.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that ended: %v", err)
	}
}

func isNotExist(err error) bool { return errors.Is(err, os.ErrNotExist) }
func isError(err error) bool    { return err != nil }

// There are records of incomplete activations.
func TestOpen_UndoesIncompleteActivations(t *testing.T) {
	b := open(t)
	_, err := b.Activate(t.Context(), "ns", "half", b.writable("disk.img"), activation.Options{})
	must(t, err)
	entries, err := os.ReadDir(b.base)
	must(t, err)
	path := filepath.Join(b.base, entries[0].Name(), "activation.json")
	data, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, []byte(strings.Replace(string(data), `"Whole":true`, `"Whole":false`, 1)), 0o600))
	must(t, os.Mkdir(filepath.Join(b.base, "beforeanything"), 0o700))
	b.reopen()
	if left, err := os.ReadDir(b.base); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	detached(t, b.own)
}

func FuzzTransform(f *testing.F) {
	f.Add("format/mkdir/bind", "{{ mount 0 }}", "X-containerd.mkdir.path=/x:700")
	f.Add("mkfs/loop", "/x", "X-containerd.mkfs.size=1")
	f.Fuzz(func(_ *testing.T, kind, source, option string) {
		activation.TryTransform(mount.Mount{Type: kind, Source: source, Options: []string{option}})
	})
}
