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
	// Point is where it is: a directory, or for a loop device a link to it.
	Point string
	At    time.Time
}

// Activation is a list of mounts that a Manager takes care of.
type Activation struct {
	Namespace, Name string
	Labels          map[string]string
	// Lease is that of the request which made it; optional.
	Lease  string
	Active []Active
	System []mount.Mount
}

// Options of an activation. The zero value is right.
type Options struct {
	Labels map[string]string
	Lease  string
	// Temporary has everything mounted, for somebody who looks at the files only.
	Temporary bool
}

// Manager knows the activations. Make it with Open.
type Manager struct {
	dir string // each activation has a directory in it
	own string // outside of what is mounted, mkdir works below this directory only

	locks keylock.Locks[key]
	mu    sync.Mutex
	all   map[key]*record
}

type key struct{ namespace, name string }

// Open returns a Manager that keeps its records and mount points in dir. own is the directory of the
// daemon's own files, see the transform mkdir. What an earlier one left half made is undone.
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
			bad = errors.Join(bad, r.takeDown())
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
// errdefs.ErrNotImplemented where nothing is to be done, errdefs.ErrInvalidArgument for mounts that
// cannot be.
func (m *Manager) Activate(ctx context.Context, namespace, name string, mounts []mount.Mount, o Options) (_ Activation, err error) {
	if name == "" {
		return Activation{}, fmt.Errorf("activate mounts: a name is needed: %w", errdefs.ErrInvalidArgument)
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
	u.Push("take mounts down", r.takeDown)
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

// baseOf is the directory of an activation: short, for the options of mounts.
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
	if err := r.takeDown(); err != nil {
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

// perform does what a plan says, each step on record before it is done.
func (m *Manager) perform(ctx context.Context, r *record, p plan) error {
	for i, step := range p.steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		mnt, err := transform(ctx, step, r.Active, m.own)
		if err != nil {
			return fmt.Errorf("mount %d: %w", i, err)
		}
		if i == len(p.steps)-1 && p.handBack {
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
			return fmt.Errorf("the last mount is a device without a file system: %w", errdefs.ErrInvalidArgument)
		}
		r.System = []mount.Mount{{Type: "bind", Source: last.Point, Options: []string{"rbind", readability(last.Options)}}}
	}
	return nil
}

// readability is the option of a bind mount of what was mounted with some.
func readability(options []string) string {
	if slices.Contains(options, "ro") {
		return "ro"
	}
	return "rw"
}

// mount performs mount i and notes it.
func (r *record) mount(i int, m mount.Mount, stacked bool) error {
	point := filepath.Join(r.base, fmt.Sprint(i))
	if m.Type == loopType {
		return r.attach(point, m)
	}
	at := point
	if m.Target != "" && stacked && i > 0 {
		at = r.Active[i-1].Point // it is to lie in the one before
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

// attach makes a block device of a file, with a link to it as the mount point.
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

// tag is what an activation's loop devices are known by.
func (r *record) tag() string {
	sum := sha256.Sum256([]byte(r.base))
	return "cleat-" + hex.EncodeToString(sum[:16])
}

// takeDown undoes whatever there is of an activation, and its directory last.
func (r *record) takeDown() error {
	for _, a := range slices.Backward(r.Active) {
		if a.Type == loopType {
			continue
		}
		if err := unmountUnder(a.Point); err != nil {
			return err
		}
	}
	if err := unmountUnder(r.base); err != nil { // never delete into what is mounted
		return err
	}
	if r.Loops {
		if err := mount.DetachLoops(r.tag()); err != nil {
			return err
		}
	}
	return os.RemoveAll(r.base)
}

// unmountUnder unmounts what is mounted at a path and below.
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
