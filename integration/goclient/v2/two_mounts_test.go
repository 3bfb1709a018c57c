package goclient

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
)

func TestMountManager(t *testing.T) {
	f := start(t)
	image := filepath.Join(t.TempDir(), "disk.img")
	manager := f.client.MountManager()
	mounts := []mount.Mount{
		{Type: "mkfs/loop", Source: image, Options: []string{"X-containerd.mkfs.size=32MiB", "X-containerd.mkfs.fs=ext4"}},
		{Type: "format/ext4", Source: "{{ source 0 }}"},
	}
	info, err := manager.Activate(f.ctx, "disk", mounts, mount.WithLabels(map[string]string{"of": "test"}))
	f.must(err)
	if len(info.Active) != 1 || len(info.System) != 1 {
		t.Fatalf("activated %+v", info)
	}
	f.must(mount.WithTempMount(f.ctx, info.System, func(root string) error {
		return os.WriteFile(filepath.Join(root, "x"), nil, 0o600)
	}))
	listed, err := manager.List(f.ctx, "labels.of==test")
	f.must(err)
	if len(listed) != 1 || listed[0].Name != "disk" {
		t.Errorf("listed %+v", listed)
	}
	f.must(manager.Deactivate(f.ctx, "disk"))
	if _, err := manager.Info(f.ctx, "disk"); !errdefs.IsNotFound(err) {
		t.Errorf("after deactivation: %v", err)
	}
	info, err = manager.Activate(f.ctx, "look", mounts, mount.WithTemporary)
	f.must(err)
	f.must(mount.WithReadonlyTempMount(f.ctx, info.System, func(root string) error {
		_, err := os.Stat(filepath.Join(root, "x"))
		return err
	}))
	f.must(manager.Deactivate(f.ctx, "look"))
	if _, err := manager.Activate(f.ctx, "plain", []mount.Mount{{Type: "bind", Source: "/"}}); !errdefs.IsNotImplemented(err) {
		t.Errorf("mounts without activation: %v", err)
	}
}
