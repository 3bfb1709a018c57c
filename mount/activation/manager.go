package activation

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/keylock"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/mount"
)

// Active is a mount that was performed.
type Active struct {
	mount.Mount
	// Point is its mount point: a directory, or for a loop device a link to it.
	Point string
	At    time.Time
}

// Activation is a list of mounts that a Manager manages.
type Activation struct {
	Namespace, Name string
	Labels          map[string]string
	// Lease is that of the request that created it; optional.
	Lease  string
	Active []Active
	System []mount.Mount
}

// Options of an activation. The zero value is right.
type Options struct {
	Labels map[string]string
	Lease  string
	// Temporary mounts everything, for reading the files only.
	Temporary bool
}

// Manager manages the activations. Open returns one.
type Manager struct {
	dir string // each activation has a directory in it
	own string // outside of mounts, mkdir works below this directory only

	locks keylock.Locks[key]
	mu    sync.Mutex
	all   map[key]*record
}

type key struct{ namespace, name string }

// Open returns a Manager that keeps its records and mount points in dir. own is the directory of the
// daemon's own files, see the transform mkdir. Incomplete activations of an earlier Manager are undone.
func Open(dir, own string) (*Manager, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open activations: %w", err)
	}
	m := &Manager{dir: dir, own: own, all: make(map[key]*record)}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open activations: %w", err)
	}
	var bad error
	for _, e := range entries {
		base := filepath.Join(dir, e.Name())
		r, err := readRecord(base)
		switch {
		case err == nil && r.Whole:
			m.all[key{r.Namespace, r.Name}] = r
		case err == nil:
			bad = errors.Join(bad, r.tearDown())
		case errors.Is(err, os.ErrNotExist):
			bad = errors.Join(bad, os.RemoveAll(base)) // before anything was mounted
		default:
			bad = errors.Join(bad, err)
		}
	}
	if bad != nil {
		return nil, fmt.Errorf("open activations: %w", bad)
	}
	return m, nil
}

// Activate performs mounts under a name. Errors: errdefs.ErrAlreadyExists for a name in use,
// errdefs.ErrNotImplemented if there is nothing to perform, errdefs.ErrInvalidArgument for invalid
// mounts.
func (m *Manager) Activate(ctx context.Context, namespace, name string, mounts []mount.Mount, o Options) (_ Activation, err error) {
	if name == "" {
		return Activation{}, fmt.Errorf("activate mounts: empty name: %w", errdefs.ErrInvalidArgument)
	}
	plan, err := planOf(mounts, o.Temporary)
	if err != nil {
		return Activation{}, fmt.Errorf("activate %s: %w", name, err)
	}
	k := key{namespace, name}
	unlock, err := m.locks.Lock(ctx, k)
	if err != nil {
		return Activation{}, err
	}
	defer unlock()
	if _, err := m.get(k); err == nil {
		return Activation{}, fmt.Errorf("activation %s: %w", name, errdefs.ErrAlreadyExists)
	}
	r := &record{
		Activation: Activation{Namespace: namespace, Name: name, Labels: maps.Clone(o.Labels), Lease: o.Lease},
		base:       m.baseOf(k),
	}
	var u undo.Stack
	defer func() { err = errors.Join(err, u.Run()) }()
	if err := os.Mkdir(r.base, 0o700); err != nil {
		return Activation{}, fmt.Errorf("activate %s: %w", name, err)
	}
	u.Push("undo mounts", r.tearDown)
	if err := m.perform(ctx, r, plan); err != nil {
		return Activation{}, fmt.Errorf("activate %s: %w", name, err)
	}
	r.Whole = true
	if err := r.write(); err != nil {
		return Activation{}, fmt.Errorf("activate %s: %w", name, err)
	}
	u.Release()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all[k] = r
	return r.copied(), nil
}

// baseOf returns the directory of an activation: short, because it is part of mount options.
func (m *Manager) baseOf(k key) string {
	sum := sha256.Sum256([]byte(k.namespace + "\x00" + k.name))
	return filepath.Join(m.dir, hex.EncodeToString(sum[:8]))
}

// Deactivate undoes an activation. It may be repeated after any error.
func (m *Manager) Deactivate(ctx context.Context, namespace, name string) error {
	k := key{namespace, name}
	unlock, err := m.locks.Lock(ctx, k)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := m.get(k)
	if err != nil {
		return err
	}
	if err := r.tearDown(); err != nil {
		return fmt.Errorf("deactivate %s: %w", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.all, k)
	return nil
}

// Info returns an activation, or errdefs.ErrNotFound.
func (m *Manager) Info(namespace, name string) (Activation, error) {
	r, err := m.get(key{namespace, name})
	if err != nil {
		return Activation{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return r.copied(), nil
}

func (m *Manager) get(k key) (*record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.all[k]; ok {
		return r, nil
	}
	return nil, fmt.Errorf("activation %s: %w", k.name, errdefs.ErrNotFound)
}

// SetLabels replaces the labels of an activation.
func (m *Manager) SetLabels(ctx context.Context, namespace, name string, change func(map[string]string) map[string]string) (Activation, error) {
	k := key{namespace, name}
	unlock, err := m.locks.Lock(ctx, k)
	if err != nil {
		return Activation{}, err
	}
	defer unlock()
	old, err := m.get(k)
	if err != nil {
		return Activation{}, err
	}
	r := *old
	r.Labels = change(maps.Clone(old.Labels))
	if err := r.write(); err != nil {
		return Activation{}, fmt.Errorf("update activation %s: %w", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all[k] = &r
	return r.copied(), nil
}

// List returns the activations of a namespace, or of all for "", ordered by name.
func (m *Manager) List(namespace string) []Activation {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Activation
	for k, r := range m.all {
		if namespace == "" || k.namespace == namespace {
			list = append(list, r.copied())
		}
	}
	slices.SortFunc(list, func(a, b Activation) int {
		return strings.Compare(a.Namespace+"\x00"+a.Name, b.Namespace+"\x00"+b.Name)
	})
	return list
}

// perform executes a plan, each step recorded before it is done.
func (m *Manager) perform(ctx context.Context, r *record, p plan) error {
	for i, step := range p.steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		mnt, err := transform(ctx, step, r.Active, m.own)
		if err != nil {
			return fmt.Errorf("mount %d: %w", i, err)
		}
		if i == len(p.steps)-1 && p.returnLast {
			r.System = append(r.System, mnt)
			break
		}
		if err := r.mount(i, mnt, p.temporary); err != nil {
			return fmt.Errorf("mount %d (%s): %w", i, step.mount.Type, err)
		}
	}
	r.System = append(r.System, p.rest...)
	if len(r.System) == 0 {
		last := r.Active[len(r.Active)-1]
		if last.Type == loopType {
			return fmt.Errorf("last mount is a device without a file system: %w", errdefs.ErrInvalidArgument)
		}
		r.System = []mount.Mount{{Type: "bind", Source: last.Point, Options: []string{"rbind", readability(last.Options)}}}
	}
	return nil
}

// readability returns the option of a bind mount of a mount with these options.
func readability(options []string) string {
	if slices.Contains(options, "ro") {
		return "ro"
	}
	return "rw"
}

// mount performs mount i and records it.
func (r *record) mount(i int, m mount.Mount, stacked bool) error {
	point := filepath.Join(r.base, fmt.Sprint(i))
	if m.Type == loopType {
		return r.attach(point, m)
	}
	at := point
	if m.Target != "" && stacked && i > 0 {
		at = r.Active[i-1].Point // mounted inside the previous one
		point = at
	} else {
		m.Target = ""
		if err := os.Mkdir(point, 0o700); err != nil {
			return err
		}
	}
	r.Active = append(r.Active, Active{Mount: m, Point: point, At: time.Now().UTC()})
	if err := r.write(); err != nil {
		return err
	}
	return mount.All([]mount.Mount{m}, at)
}

// attach creates a block device of a file, with a link to it as the mount point.
func (r *record) attach(point string, m mount.Mount) error {
	r.Loops = true // from here on there may be one
	if err := r.write(); err != nil {
		return err
	}
	device, err := mount.AttachLoop(m.Source, r.tag(), slices.Contains(m.Options, "ro"))
	if err != nil {
		return err
	}
	m.Source = device
	r.Active = append(r.Active, Active{Mount: m, Point: point, At: time.Now().UTC()})
	return os.Symlink(device, point)
}

// tag returns the tag of an activation's loop devices.
func (r *record) tag() string {
	sum := sha256.Sum256([]byte(r.base))
	return "cleat-" + hex.EncodeToString(sum[:16])
}

// tearDown undoes an activation as far as it exists, and removes its directory last.
func (r *record) tearDown() error {
	for _, a := range slices.Backward(r.Active) {
		if a.Type == loopType {
			continue
		}
		if err := unmountUnder(a.Point); err != nil {
			return err
		}
	}
	if err := unmountUnder(r.base); err != nil { // never delete inside a mount
		return err
	}
	if r.Loops {
		if err := mount.DetachLoops(r.tag()); err != nil {
			return err
		}
	}
	return os.RemoveAll(r.base)
}

// unmountUnder unmounts all mounts at a path and below.
func unmountUnder(path string) error {
	points, err := mount.Under(path)
	if err != nil {
		return err
	}
	for _, p := range points {
		if err := mount.UnmountAll(p, unix.UMOUNT_NOFOLLOW); err != nil {
			return err
		}
	}
	return nil
}
