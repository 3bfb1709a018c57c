package runtime

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/durable"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/proto/rpc"
)

// Files of a bundle, next to rootfs/.
const (
	specFile       = "config.json"      // the OCI runtime spec
	bootstrapFile  = "bootstrap.json"   // address of the shim
	shimBinaryFile = "shim-binary-path" // the shim's binary
	runtimeFile    = "runtime"          // the requested runtime name
	logFile        = "log"              // stderr of the shim
)

// Parts below the state directory: of tasks, as in other managers, and of sandboxes.
const (
	bundlesDir   = "io.containerd.runtime.v2.task"
	sandboxesDir = "io.containerd.runtime.v2.sandbox"
)

// bundle is the directory of one task or sandbox.
type bundle struct {
	namespace, id string
	path          string // STATE/io.containerd.runtime.v2.task/NS/ID
	work          string // ROOT/io.containerd.runtime.v2.task/NS/ID
}

func (m *Manager) bundleOf(namespace, id string) *bundle {
	return m.bundleIn(bundlesDir, namespace, id)
}

func (m *Manager) bundleIn(dir, namespace, id string) *bundle {
	return &bundle{
		namespace: namespace, id: id,
		path: filepath.Join(m.cfg.State, dir, namespace, id),
		work: filepath.Join(m.cfg.Root, dir, namespace, id),
	}
}

// create creates the complete bundle or nothing, except for its spec (writeSpec). It returns
// errdefs.ErrAlreadyExists if the bundle exists.
func (b *bundle) create(runtimeName, shimBinary string) (err error) {
	var u undo.Stack
	defer func() { err = errors.Join(err, u.Run()) }()
	parent := filepath.Dir(b.path)
	if err := os.MkdirAll(parent, 0o711); err != nil {
		return fmt.Errorf("create bundle of %s: %w", b.id, err)
	}
	tmp := filepath.Join(parent, "."+b.id+"-"+rand.Text()[:8])
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return fmt.Errorf("create bundle of %s: %w", b.id, err)
	}
	u.Push("remove incomplete bundle", func() error { return os.RemoveAll(tmp) })
	if err := b.fill(tmp, runtimeName, shimBinary); err != nil {
		return fmt.Errorf("create bundle of %s: %w", b.id, err)
	}
	if err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, b.path, unix.RENAME_NOREPLACE); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("task %s: %w", b.id, errdefs.ErrAlreadyExists)
		}
		return fmt.Errorf("create bundle of %s: %w", b.id, err)
	}
	u.Release()
	return nil
}

// fill writes the initial files of a bundle. Nothing here is synced: a bundle does not survive a
// reboot.
func (b *bundle) fill(dir, runtimeName, shimBinary string) error {
	if err := os.MkdirAll(b.work, 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o711); err != nil {
		return err
	}
	if err := os.Symlink(b.work, filepath.Join(dir, "work")); err != nil {
		return err
	}
	state, err := bundleState{}.encode()
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		shimBinaryFile: []byte(shimBinary),
		runtimeFile:    []byte(runtimeName),
		stateFile:      state,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// writeSpec completes a bundle by its spec.
func (b *bundle) writeSpec(spec []byte) error {
	if err := os.WriteFile(b.file(specFile), spec, 0o600); err != nil {
		return fmt.Errorf("write spec of %s: %w", b.id, err)
	}
	if err := chownBundle(b.path, spec); err != nil {
		return fmt.Errorf("write spec of %s: %w", b.id, err)
	}
	return nil
}

// chownBundle lets the group of root in a container's user namespace pass through the bundle:
// the OCI runtime opens the root file system as that group.
func chownBundle(dir string, spec []byte) error {
	if !bytes.Contains(spec, []byte(`"gidMappings"`)) { // the usual case
		return nil
	}
	var s struct {
		Linux struct {
			GIDMappings []struct {
				ContainerID uint32 `json:"containerID"`
				HostID      uint32 `json:"hostID"`
			} `json:"gidMappings"`
		} `json:"linux"`
	}
	if err := json.Unmarshal(spec, &s); err != nil {
		return fmt.Errorf("read spec: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	for _, m := range s.Linux.GIDMappings {
		if m.ContainerID == 0 {
			return errors.Join(os.Chown(dir, -1, int(m.HostID)), os.Chmod(dir, 0o710))
		}
	}
	return nil
}

// file returns the path of a file of the bundle.
func (b *bundle) file(name string) string { return filepath.Join(b.path, name) }

// put creates or replaces a file of the bundle, whole or not at all.
func (b *bundle) put(name string, data []byte, perm os.FileMode) error {
	tmp := b.file("." + name)
	if err := os.WriteFile(tmp, data, perm); err != nil {
		return err
	}
	return durable.RenameUnsynced(tmp, b.file(name))
}

// read returns the text of a small file of the bundle, or "".
func (b *bundle) read(name string) string {
	data, err := os.ReadFile(b.file(name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// has reports whether the bundle holds a file.
func (b *bundle) has(name string) bool {
	_, err := os.Lstat(b.file(name))
	return err == nil
}

// remove removes the bundle: it is renamed first, then its mounts go, then its files. Idempotent.
func (b *bundle) remove() error {
	hidden := filepath.Join(filepath.Dir(b.path), "."+b.id+"-"+rand.Text()[:8])
	if err := durable.RenameUnsynced(b.path, hidden); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove bundle of %s: %w", b.id, err)
	}
	if err := removeHidden(hidden); err != nil {
		return fmt.Errorf("remove bundle of %s: %w", b.id, err)
	}
	if err := os.RemoveAll(b.work); err != nil {
		return fmt.Errorf("remove work directory of %s: %w", b.id, err)
	}
	return nil
}

// removeHidden removes a bundle that was renamed to a hidden name, without crossing into file
// systems that are still mounted in it.
func removeHidden(path string) error {
	if err := mount.UnmountAll(filepath.Join(path, "rootfs"), unix.UMOUNT_NOFOLLOW); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(path, "rootfs")); err != nil && !errors.Is(err, os.ErrNotExist) {
		// A mount or new files are in it: check before deleting.
		under, uerr := mount.Under(path)
		if uerr != nil {
			return uerr
		}
		for _, p := range under {
			if err := mount.UnmountAll(p, unix.UMOUNT_NOFOLLOW); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(path)
}

// address is the address of a shim, bootstrap.json of the bundle.
type address struct {
	Version  int    `json:"version"` // of the task API
	Address  string `json:"address"`
	Protocol string `json:"protocol"`
	// Native marks cleat's own shim; others ignore the field.
	Native bool `json:"cleat,omitempty"`
	// Joined marks a sandbox's shim, which outlives this task.
	Joined bool `json:"joined,omitempty"`
}

// writeAddress writes the address atomically.
func (b *bundle) writeAddress(a address) error {
	data, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode address of shim %s: %w", b.id, err)
	}
	if err := b.put(bootstrapFile, data, 0o644); err != nil {
		return fmt.Errorf("write address of shim %s: %w", b.id, err)
	}
	return nil
}

// readAddress returns the shim's address, also in the plain form of older managers.
func (b *bundle) readAddress() (address, error) {
	data, err := os.ReadFile(b.file(bootstrapFile))
	if errors.Is(err, os.ErrNotExist) {
		if plain := b.read("address"); plain != "" {
			return address{Version: 2, Address: plain, Protocol: "ttrpc"}, nil
		}
	}
	if err != nil {
		return address{}, fmt.Errorf("read address of shim %s: %w", b.id, err)
	}
	var a address
	if err := json.Unmarshal(data, &a); err != nil {
		return address{}, fmt.Errorf("read address of shim %s: %w", b.id, err)
	}
	return a, nil
}

// bundles lists the bundles on disk, and removes incomplete and half-removed ones.
func (m *Manager) bundles() (tasks, sandboxes []*bundle, err error) {
	if tasks, err = m.listBundles(bundlesDir); err != nil {
		return nil, nil, err
	}
	if sandboxes, err = m.listBundles(sandboxesDir); err != nil {
		return nil, nil, err
	}
	all := append(sandboxes[:len(sandboxes):len(sandboxes)], tasks...)
	m.sweepWork(all)
	m.sweepSockets(all)
	return tasks, sandboxes, nil
}

// sweepWork removes work directories without a bundle: they are removed last, so a crash can leave
// them.
func (m *Manager) sweepWork(found []*bundle) {
	owned := make(map[string]bool, len(found))
	for _, b := range found {
		owned[b.work] = true
	}
	for _, part := range []string{bundlesDir, sandboxesDir} {
		work, err := filepath.Glob(filepath.Join(m.cfg.Root, part, "*", "*"))
		if err != nil {
			m.cfg.Log.Warn("cannot list work directories", "error", err)
			continue
		}
		for _, dir := range work {
			if owned[dir] {
				continue
			}
			if err := os.RemoveAll(dir); err != nil {
				m.cfg.Log.Warn("cannot remove what is left of a bundle", "path", dir, "error", err)
			}
		}
	}
}

// sweepSockets removes the sockets that no bundle refers to: a daemon died between a shim's end and
// the removal of its socket. If an address cannot be read, all are kept.
func (m *Manager) sweepSockets(found []*bundle) {
	named := make(map[string]bool, len(found))
	for _, b := range found {
		addr, err := b.readAddress()
		if errors.Is(err, os.ErrNotExist) {
			continue // its shim was never started
		}
		if err != nil {
			m.cfg.Log.Warn("cannot determine which sockets are in use", "error", err)
			return
		}
		if path, err := rpc.SocketPath(addr.Address); err == nil {
			named[path] = true
		}
	}
	paths, err := filepath.Glob(filepath.Join(m.cfg.State, "s", "*"))
	if err != nil {
		m.cfg.Log.Warn("cannot list sockets", "error", err)
		return
	}
	for _, path := range paths {
		if named[path] {
			continue
		}
		if err := removeFile(path); err != nil {
			m.cfg.Log.Warn("cannot remove a dead shim's socket", "path", path, "error", err)
		}
	}
}

// listBundles lists the bundles below one part of the state directory.
func (m *Manager) listBundles(dir string) ([]*bundle, error) {
	base := filepath.Join(m.cfg.State, dir)
	namespaces, err := os.ReadDir(base)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list bundles: %w", err)
	}
	var found []*bundle
	for _, ns := range namespaces {
		entries, err := os.ReadDir(filepath.Join(base, ns.Name()))
		if err != nil {
			return nil, fmt.Errorf("list bundles of namespace %s: %w", ns.Name(), err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") {
				if err := removeHidden(filepath.Join(base, ns.Name(), e.Name())); err != nil {
					m.cfg.Log.Warn("cannot remove what is left of a bundle", "path", e.Name(), "error", err)
				}
				continue
			}
			if e.IsDir() {
				found = append(found, m.bundleIn(dir, ns.Name(), e.Name()))
			}
		}
	}
	return found, nil
}
