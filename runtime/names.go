package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/reason"
)

// NativeRuntime is the name of cleat's own shim.
const NativeRuntime = "io.containerd.cleat.v2"

// nativeBinary is the shim's file name by the published rule.
const nativeBinary = "containerd-shim-cleat-v2"

// resolve returns the shim binary of a runtime name, after the configured aliases. An absolute path
// is used unchanged. Names are looked up next to cleatd's own binary for cleat's shim and in PATH
// first for others.
// shim and in PATH first for others.
func (m *Manager) resolve(name string) (string, error) {
	if name == "" {
		name = NativeRuntime
	}
	if alias, ok := m.cfg.Runtimes[name]; ok && !filepath.IsAbs(name) {
		name = alias
	}
	if filepath.IsAbs(name) {
		if info, err := os.Stat(name); err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			return "", fmt.Errorf("runtime %s: no such executable: %w", name, reason.ShimMissing)
		}
		return name, nil
	}
	binary, err := binaryName(name)
	if err != nil {
		return "", err
	}
	beside := filepath.Join(filepath.Dir(m.cfg.Binary), binary)
	if binary == nativeBinary && executable(beside) {
		return beside, nil
	}
	if path, err := exec.LookPath(binary); err == nil {
		return filepath.Abs(path)
	}
	if executable(beside) {
		return beside, nil
	}
	return "", fmt.Errorf("runtime %s: %s is neither in PATH nor next to cleatd: %w",
		name, binary, reason.ShimMissing)
}

// binaryName applies the published rule: io.containerd.runc.v2 is containerd-shim-runc-v2.
func binaryName(name string) (string, error) {
	parts := strings.Split(name, ".")
	if len(parts) < 2 || strings.ContainsAny(name, "/\x00") {
		return "", fmt.Errorf("invalid runtime name %q: want a name like %s or an absolute path: %w", name, NativeRuntime, errdefs.ErrInvalidArgument)
	}
	for _, p := range parts {
		if p == "" {
			return "", fmt.Errorf("invalid runtime name %q: empty part: %w", name, errdefs.ErrInvalidArgument)
		}
	}
	return "containerd-shim-" + parts[len(parts)-2] + "-" + parts[len(parts)-1], nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// native reports whether a shim binary is cleat's own, by its name.
func native(binary string) bool { return filepath.Base(binary) == nativeBinary }
