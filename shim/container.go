package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/errdefs"
	runc "github.com/containerd/go-runc"

	"github.com/cleatproject/cleat/shim/cgroup"
)

// container holds the server's data of one container: its init, its exec'd processes, and how to
// reach it.
type container struct {
	id, bundle string
	runtime    *ociRuntime
	init       *process
	restore    *runc.RestoreOpts // of a restore, which Start does; nil for others
	mounted    bool              // something is mounted at rootfs
	ioUID      uint32            // owner of the pipes for stdio
	ioGID      uint32

	held *os.File // the lock on the bundle; see handle.go

	handleMu sync.Mutex // held while the handle is written
	handle   handle

	// removal runs the OCI runtime's delete once; see delete.go.
	removal removal

	mu     sync.Mutex
	execs  map[string]*process
	cgroup cgroup.Group
	oom    *oomWatch
	ooms   uint64 // kills published so far
}

func (c *container) file(name string) string { return filepath.Join(c.bundle, name) }

// process returns the init, or the exec'd process of that id.
func (c *container) process(execID string) (*process, error) {
	if execID == "" {
		return c.init, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.execs[execID]; ok {
		return p, nil
	}
	return nil, fmt.Errorf("process %s of container %s: %w", execID, c.id, errdefs.ErrNotFound)
}

// addExec registers an exec'd process; the id must be free.
func (c *container) addExec(p *process) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.execs[p.execID]; ok {
		return fmt.Errorf("process %s of container %s: %w", p.execID, c.id, errdefs.ErrAlreadyExists)
	}
	c.execs[p.execID] = p
	return nil
}

func (c *container) removeExec(p *process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.execs[p.execID] == p {
		delete(c.execs, p.execID)
	}
}

// execList returns the exec'd processes.
func (c *container) execList() []*process {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]*process, 0, len(c.execs))
	for _, p := range c.execs {
		out = append(out, p)
	}
	return out
}
