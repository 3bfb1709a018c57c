package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/reaper"
)

// Config is what a Manager is made of. All fields without "optional" are required.
type Config struct {
	// State holds bundles, sockets and the OCI runtime's state; lost at reboot.
	State string
	// Root holds work directories.
	Root string
	// Address and TTRPCAddress are the daemon's sockets, told to shims.
	Address, TTRPCAddress string
	// Binary is cleatd's own path, told to shims as -publish-binary.
	Binary string
	// Runtimes maps runtime names to other names or to absolute paths; optional.
	Runtimes map[string]string
	// Debug makes shims log more; optional.
	Debug bool
	// Reaper collects the shims started here.
	Reaper *reaper.Reaper
	// Publish announces an event on behalf of a shim that died; Observe must not be called
	// for it.
	Publish func(events.Event) error
	Log     *slog.Logger
}

// key names a task.
type key struct{ namespace, id string }

// Manager knows the tasks. Make it with New, then call Recover once.
type Manager struct {
	cfg Config

	mu    sync.Mutex
	tasks map[key]*Task

	ctx    context.Context //nolint:containedctx // the life of the Manager's own goroutines
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New returns a Manager without tasks. Close it.
func New(cfg Config) (*Manager, error) {
	for dir, mode := range map[string]os.FileMode{
		// Those who are root in a container's user namespace pass through to their own bundle, see admit.
		filepath.Join(cfg.State, bundlesDir): 0o711,
		filepath.Join(cfg.State, "s"):        0o700,
		filepath.Join(cfg.State, "runc"):     0o700,
	} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return nil, fmt.Errorf("create state directory: %w", err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			return nil, fmt.Errorf("close state directory to others: %w", err)
		}
	}
	if err := os.MkdirAll(filepath.Join(cfg.Root, bundlesDir), 0o700); err != nil {
		return nil, fmt.Errorf("create work directory: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Manager{cfg: cfg, tasks: make(map[key]*Task), ctx: ctx, cancel: cancel}, nil
}

// Close forgets every task, leaving shims and containers alone, and waits for the Manager's
// goroutines.
func (m *Manager) Close() error {
	m.cancel()
	m.mu.Lock()
	tasks := make([]*Task, 0, len(m.tasks))
	for _, t := range m.tasks {
		tasks = append(tasks, t)
	}
	m.mu.Unlock()
	var err error
	for _, t := range tasks {
		err = errors.Join(err, t.disconnect())
	}
	m.wg.Wait()
	return err
}

// Get returns a task, or errdefs.ErrNotFound.
func (m *Manager) Get(namespace, id string) (*Task, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.tasks[key{namespace, id}]
	if !ok || !t.visible {
		return nil, fmt.Errorf("task %s: %w", id, errdefs.ErrNotFound)
	}
	return t, nil
}

// List returns the tasks of a namespace, or of all for "", ordered by id. It asks no shim.
func (m *Manager) List(namespace string) []*Task {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*Task
	for k, t := range m.tasks {
		if t.visible && (namespace == "" || k.namespace == namespace) {
			list = append(list, t)
		}
	}
	sort.Slice(list, func(i, j int) bool {
		a, b := list[i], list[j]
		return a.namespace < b.namespace || a.namespace == b.namespace && a.id < b.id
	})
	return list
}

// add enters a task that is being made. Only one may have its name.
func (m *Manager) add(t *Task) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return fmt.Errorf("task %s: the daemon is stopping: %w", t.id, errdefs.ErrUnavailable)
	}
	k := key{t.namespace, t.id}
	if _, ok := m.tasks[k]; ok {
		return fmt.Errorf("task %s: %w", t.id, errdefs.ErrAlreadyExists)
	}
	m.tasks[k] = t
	return nil
}

// show makes an entered task visible to Get and List.
func (m *Manager) show(t *Task) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t.visible = true
}

// forget removes a task from the table.
func (m *Manager) forget(t *Task) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := key{t.namespace, t.id}
	if m.tasks[k] == t {
		delete(m.tasks, k)
	}
}

// lookup returns a task, visible or not, or nil.
func (m *Manager) lookup(namespace, id string) *Task {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tasks[key{namespace, id}]
}

// spawn runs f until it returns, as one of the Manager's goroutines.
func (m *Manager) spawn(f func(ctx context.Context)) {
	m.wg.Go(func() { f(m.ctx) })
}
