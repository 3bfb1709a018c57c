package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/internal/gate"
	"github.com/cleatproject/cleat/internal/hostproc"
	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/reaper"
)

// Config configures a Manager. All fields without "optional" are required.
type Config struct {
	// State holds bundles, sockets and the OCI runtime's state; lost at reboot.
	State string
	// Root holds work directories.
	Root string
	// Address and TTRPCAddress are the daemon's sockets, passed to shims.
	Address, TTRPCAddress string
	// Binary is cleatd's own path, passed to shims as -publish-binary.
	Binary string
	// Runtimes maps runtime names to other names or to absolute paths; optional.
	Runtimes map[string]string
	// Debug makes shims log more; optional.
	Debug bool
	// Attributes are process attributes that shims do not inherit; the zero value lets them inherit
	// everything.
	Attributes hostproc.Attributes
	// Reaper collects the shims started here.
	Reaper *reaper.Reaper
	// Publish publishes an event on behalf of a shim that died; Observe must not be called for it.
	Publish func(events.Event) error
	// Written reports whether all published events survive this process; nil means always. An exit
	// for which that is not certain is published again by the next daemon.
	Written func() bool
	// Gone is called when a task was removed; optional. It must not block.
	Gone func()
	Log  *slog.Logger
}

// key identifies a task.
type key struct{ namespace, id string }

// Manager manages the tasks. Create it with New, then call Recover once.
type Manager struct {
	cfg Config

	mu       sync.Mutex
	tasks    map[key]*Task
	creating map[key]*creation

	ctx    context.Context //nolint:containedctx // the life of the Manager's own goroutines
	cancel context.CancelFunc
	wg     sync.WaitGroup

	undetached sync.Once // the warning of detach
	gates      gates
}

// gates bound the amount of concurrent heavy work of each kind. The kinds do not wait for each
// other in a circle: a create that fails deletes, and nothing else enters a second gate.
type gates struct {
	create  *gate.Gate // starts of shims, creation and start of containers
	exec    *gate.Gate // processes started in containers
	delete  *gate.Gate // containers deleted, or cleaned up after their shim
	control *gate.Gate // signals, pauses and other invocations of the OCI runtime
}

// atOnce is the amount of work of a kind admitted for each processor: work also waits for disks and
// processes.
const atOnce = 4

// Work that takes longer than these limits waits for something other than the host, such as a
// stopped shim, and no longer counts.
const (
	heavyLease   = 10 * time.Second
	controlLease = 3 * time.Second
)

func newGates() gates {
	n := atOnce * runtime.GOMAXPROCS(0)
	return gates{
		create: gate.New("create a task", n, heavyLease), exec: gate.New("start a process", n, heavyLease),
		delete: gate.New("delete a task", n, heavyLease), control: gate.New("control a task", n, controlLease),
	}
}

// New returns a Manager without tasks. Close it.
func New(cfg Config) (*Manager, error) {
	for dir, mode := range map[string]os.FileMode{
		// Root of a container's user namespace passes through to its own bundle, see chownBundle.
		filepath.Join(cfg.State, bundlesDir): 0o711,
		filepath.Join(cfg.State, "s"):        0o700,
		filepath.Join(cfg.State, "runc"):     0o700,
	} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return nil, fmt.Errorf("create state directory: %w", err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			return nil, fmt.Errorf("restrict state directory: %w", err)
		}
	}
	if err := os.MkdirAll(filepath.Join(cfg.Root, bundlesDir), 0o700); err != nil {
		return nil, fmt.Errorf("create work directory: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Manager{cfg: cfg, tasks: make(map[key]*Task), creating: make(map[key]*creation), ctx: ctx, cancel: cancel, gates: newGates()}, nil
}

// Close drops every task without touching shims and containers, and waits for the Manager's
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
	return m.getLocked(key{namespace, id})
}

func (m *Manager) getLocked(k key) (*Task, error) {
	t, ok := m.tasks[k]
	if !ok || !t.visible {
		return nil, fmt.Errorf("task %s: %w", k.id, reason.TaskNotFound)
	}
	return t, nil
}

// creation is a set of one or more active requests that create a task of one name.
type creation struct {
	requests int
	done     chan struct{} // closed when the last of them has ended
}

// Creating registers that a request is about to create a task: until the returned function is
// called, Await waits for the outcome.
func (m *Manager) Creating(namespace, id string) (done func()) {
	k := key{namespace, id}
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.creating[k]
	if c == nil {
		c = &creation{done: make(chan struct{})}
		m.creating[k] = c
	}
	c.requests++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if c.requests--; c.requests == 0 {
			delete(m.creating, k)
			close(c.done)
		}
	}
}

// Await is Get for clients, which may refer to a task as soon as they have requested it: while a
// request that creates it is active, Await waits for the outcome, until ctx ends.
func (m *Manager) Await(ctx context.Context, namespace, id string) (*Task, error) {
	k := key{namespace, id}
	for {
		m.mu.Lock()
		t, err := m.getLocked(k)
		c := m.creating[k]
		m.mu.Unlock()
		if err == nil || c == nil {
			return t, err
		}
		select {
		case <-c.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("task %s: wait for its creation: %w", id, ctx.Err())
		case <-m.ctx.Done():
			return nil, fmt.Errorf("task %s: daemon is stopping: %w", id, errdefs.ErrUnavailable)
		}
	}
}

// List returns the tasks of a namespace, or of all for "", ordered by id. It calls no shim.
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

// add enters a task that is being created. Names are unique.
func (m *Manager) add(t *Task) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return fmt.Errorf("task %s: daemon is stopping: %w", t.id, errdefs.ErrUnavailable)
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

// hide makes a task invisible to Get and List again.
func (m *Manager) hide(t *Task) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t.visible = false
}

// forget removes a task from the table.
func (m *Manager) forget(t *Task) {
	m.mu.Lock()
	k := key{t.namespace, t.id}
	if m.tasks[k] == t {
		delete(m.tasks, k)
	}
	m.mu.Unlock()
	if m.cfg.Gone != nil {
		m.cfg.Gone()
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
