package shim_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// args sets the command of the container.
func args(list ...string) func(map[string]any) {
	return func(spec map[string]any) { spec["process"].(map[string]any)["args"] = list }
}

// makeBundle writes a bundle whose rootfs holds busybox.
func makeBundle(t *testing.T, bundle string, edit func(map[string]any)) {
	t.Helper()
	bin := filepath.Join(bundle, "rootfs", "bin")
	for _, dir := range []string{"bin", "proc", "dev", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(bundle, "rootfs", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link("/bin/busybox", filepath.Join(bin, "busybox")); err != nil {
		data, err := os.ReadFile("/bin/busybox")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bin, "busybox"), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"sh", "echo", "cat", "sleep", "true", "ls", "dd", "stty", "kill", "seq", "tail", "head", "yes", "readlink", "id"} {
		if err := os.Symlink("busybox", filepath.Join(bin, name)); err != nil && !errors.Is(err, unix.EEXIST) {
			t.Fatal(err)
		}
	}
	spec := map[string]any{
		"ociVersion": "1.0.2",
		"process": map[string]any{
			"args": []string{"sh"}, "cwd": "/", "env": []string{"PATH=/bin", "TERM=xterm"},
			"user": map[string]any{"uid": 0, "gid": 0}, "noNewPrivileges": true,
			"capabilities": map[string]any{
				"bounding": []string{"CAP_KILL"}, "effective": []string{"CAP_KILL"}, "permitted": []string{"CAP_KILL"},
			},
		},
		"root":     map[string]any{"path": "rootfs"},
		"hostname": "test",
		"mounts": []any{
			map[string]any{"destination": "/proc", "type": "proc", "source": "proc"},
			map[string]any{
				"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
				"options": []string{"nosuid", "strictatime", "mode=755", "size=65536k"},
			},
			map[string]any{
				"destination": "/dev/pts", "type": "devpts", "source": "devpts",
				"options": []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"},
			},
		},
		"linux": map[string]any{
			"cgroupsPath": "/cleat-shim-test/" + filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(bundle)))) + "-" + filepath.Base(bundle),
			"namespaces": []any{
				map[string]any{"type": "pid"},
				map[string]any{"type": "ipc"},
				map[string]any{"type": "uts"},
				map[string]any{"type": "mount"},
				map[string]any{"type": "network"},
			},
		},
	}
	if edit != nil {
		edit(spec)
	}
	data, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
}
