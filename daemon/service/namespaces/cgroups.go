package namespaces

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cleatproject/cleat/runtime"
)

// The cgroups of namespaces.
//
// OCI runtimes make the parents of a container's cgroup and remove the container's alone. So the
// directory of a namespace is removed here: with the namespace, and some time after its last
// container, as the next one often comes soon. A directory that holds a process or a cgroup is
// refused by the kernel. One that a runtime is about to use must not be removed under it: while a
// task of a namespace is created, its directory stays.

// cgroupIdle is how long the cgroup of a namespace stays after its last container.
const cgroupIdle = 2 * time.Second

// Cgroups removes the cgroups of namespaces that are not used any more. Its methods may be called concurrently.
type Cgroups struct {
	parent string
	tasks  *runtime.Manager

	mu     sync.Mutex
	making map[string]int // tasks that are being created, by namespace
	gone   chan struct{}  // has a token after a task was deleted
}

// NewCgroups returns the cgroups of namespaces below parent, with their tasks.
func NewCgroups(parent string, tasks *runtime.Manager) *Cgroups {
	return &Cgroups{parent: parent, tasks: tasks, gone: make(chan struct{}, 1)}
}

// Of returns the cgroup of a container that chooses none.
func (c *Cgroups) Of(namespace, id string) string { return filepath.Join(c.parent, namespace, id) }

// Enter keeps the directory of a namespace until leave is called.
func (c *Cgroups) Enter(namespace string) (leave func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.making == nil {
		c.making = make(map[string]int)
	}
	c.making[namespace]++
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.making[namespace]--; c.making[namespace] == 0 {
			delete(c.making, namespace)
		}
	})
}

// TaskGone records that a task was deleted. It does not block.
func (c *Cgroups) TaskGone() {
	select {
	case c.gone <- struct{}{}:
	default:
	}
}

// Tend removes the cgroups of namespaces that have no task, until ctx ends.
func (c *Cgroups) Tend(ctx context.Context) {
	for {
		select {
		case <-c.gone:
		case <-ctx.Done():
			return
		}
		timer := time.NewTimer(cgroupIdle)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		c.removeIdleDirs()
	}
}

// removeIdleDirs removes the directories of namespaces below this daemon's own in which no task is
// and none is being created.
func (c *Cgroups) removeIdleDirs() {
	for _, base := range hierarchies() {
		entries, err := os.ReadDir(filepath.Join(base, c.parent))
		if err != nil {
			continue // not of this daemon
		}
		for _, e := range entries {
			if e.IsDir() {
				c.removeIdle(filepath.Join(base, c.parent, e.Name()), e.Name())
			}
		}
	}
}

func (c *Cgroups) removeIdle(dir, namespace string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.making[namespace] == 0 && len(c.tasks.List(namespace)) == 0 {
		_ = os.Remove(dir) // rmdir refuses what is in use, which is the point
	}
}

// removeNamespace removes what a namespace that is gone has left: its directory below this
// daemon's own, and the one in the root that clients put containers into by default.
func (c *Cgroups) removeNamespace(namespace string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.making[namespace] != 0 {
		return
	}
	for _, base := range hierarchies() {
		removeCgroupTree(filepath.Join(base, c.parent, namespace))
		if ext := filepath.Ext(namespace); ext != ".slice" && ext != ".scope" && ext != ".service" { // systemd's
			_ = os.Remove(filepath.Join(base, namespace)) // others may have one of that name: only if it is empty
		}
	}
}

// removeCgroupTree removes the cgroups at and below dir that hold no process.
func removeCgroupTree(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			removeCgroupTree(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir) // as above
}

// RemoveEmpty removes the cgroups below this daemon's own that hold nothing, and
// then its own. The caller ensures that no container is created.
func (c *Cgroups) RemoveEmpty() {
	for _, base := range hierarchies() {
		own := filepath.Join(base, c.parent)
		namespaces, err := filepath.Glob(filepath.Join(own, "*"))
		if err != nil {
			return
		}
		for _, dir := range append(namespaces, own) {
			if info, err := os.Lstat(dir); err == nil && info.IsDir() {
				_ = os.Remove(dir) // as above
			}
		}
	}
}

// cgroupMount is where the host's cgroups are mounted.
const cgroupMount = "/sys/fs/cgroup"

// hierarchies returns the roots of the host's cgroup hierarchies: the mount itself on version 2, one for
// each controller on version 1, without the links from one name to another.
func hierarchies() (roots []string) {
	if _, err := os.Stat(filepath.Join(cgroupMount, "cgroup.controllers")); err == nil {
		return []string{cgroupMount}
	}
	entries, err := os.ReadDir(cgroupMount)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			roots = append(roots, filepath.Join(cgroupMount, e.Name()))
		}
	}
	return roots
}
