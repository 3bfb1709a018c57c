package mount

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// It reads an overlay whose upper directory changes and hides lower files, by a mount
// that leaves it alone.
func TestToLook_ShowsTheSame(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a:b,c") // which the options have to escape
	lower, upper, work := filepath.Join(dir, "lower"), filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	at := t.TempDir()
	for _, d := range []string{lower, upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"changed": "below", "hidden": "below", "kept": "below"} {
		if err := os.WriteFile(filepath.Join(lower, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := []Mount{{Type: "overlay", Source: "overlay", Options: []string{
		"workdir=" + EscapeOverlayPath(work), "index=off", "upperdir=" + EscapeOverlayPath(upper), "lowerdir=" + EscapeOverlayPath(lower),
	}}}
	if err := All(m, at); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(os.WriteFile(filepath.Join(at, "changed"), []byte("above"), 0o600), os.Remove(filepath.Join(at, "hidden")))
	if err = errors.Join(err, UnmountAll(at, 0)); err != nil {
		t.Fatal(err)
	}

	root, err := Detached(ToLook(m))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, want := range map[string]string{"changed": "above", "kept": "below", "hidden": ""} {
		got, err := readAt(root, name)
		if want == "" && !errors.Is(err, fs.ErrNotExist) || want != "" && (err != nil || got != want) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	if fd, err := unix.Openat(int(root.Fd()), "new", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing to it: descriptor %d, %v", fd, err)
	}
}

func readAt(dir *os.File, name string) (string, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	b := make([]byte, 64)
	n, err := f.Read(b)
	return string(b[:n]), err
}

func TestToLook_KeepsOtherMounts(t *testing.T) {
	for _, m := range []Mount{
		{Type: "bind", Source: "/x", Options: []string{"rbind", "rw"}},
		{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=/a:/b", "index=off"}},
		{Type: "ext4", Source: "/dev/x", Options: []string{"ro"}},
	} {
		got := ToLook([]Mount{m})
		if len(got) != 1 || got[0].Type != m.Type || got[0].Source != m.Source || !slices.Equal(got[0].Options, m.Options) {
			t.Errorf("%v became %v", m, got)
		}
	}
	m := []Mount{{Type: "overlay", Options: []string{"volatile", "upperdir=/u", "workdir=/w", "lowerdir=/a:/b"}}}
	if got := ToLook(m)[0].Options; !slices.Equal(got, []string{"lowerdir=/u:/a:/b"}) {
		t.Errorf("got %q", got)
	}
	if len(m[0].Options) != 4 {
		t.Errorf("the mounts given became %v", m)
	}
}
