package containers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/mount"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The directory of a container that runs and the mounts of one that is created give the same.
func TestResolveUser_DirectoryAndMountsAgree(t *testing.T) {
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "etc"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("web:x:1000:1001:::\n"), 0o644))
	mounts := []mount.Mount{{Type: "bind", Source: root, Options: []string{"rbind", "ro"}}}
	for _, by := range []struct {
		mounts []mount.Mount
		rootfs string
	}{{nil, root}, {mounts, ""}} {
		if who, err := resolveUser(t.Context(), by.mounts, by.rootfs, "web"); err != nil || who.UID != 1000 || who.GID != 1001 {
			t.Errorf("%+v: got %+v, %v", by, who, err)
		}
		if who, err := resolveUser(t.Context(), by.mounts, by.rootfs, "nobody"); !errdefs.IsNotFound(err) {
			t.Errorf("%+v: got %+v, %v", by, who, err)
		}
	}
}

func TestResolveUser_Fails(t *testing.T) {
	if _, err := resolveUser(t.Context(), nil, filepath.Join(t.TempDir(), "missing"), ""); !errdefs.IsNotFound(err) {
		t.Errorf("missing directory: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := resolveUser(ctx, nil, t.TempDir(), ""); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
