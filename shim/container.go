package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/errdefs"
	runc "github.com/containerd/go-runc"
)

// container is what the server holds of one container: its init, its exec'd processes, and how to
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
	cgroup cgroup
	oom    *oomWatch
	ooms   uint64 // kills announced so far
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

// addExec makes an exec'd process known; the id must be free.
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

// validID is the rule for identifiers: letters and digits, with single ._- between, at most 76.
func validID(id string) error {
	bad := func() error {
		return fmt.Errorf("identifier %.80q: want letters and digits, joined by single '.', '_' or '-', 76 characters at most: %w",
			id, errdefs.ErrInvalidArgument)
	}
	if id == "" || len(id) > 76 {
		return bad()
	}
	sep := true // a separator may not come first, last or twice
	for _, r := range []byte(id) {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			sep = false
		case (r == '.' || r == '_' || r == '-') && !sep:
			sep = true
		default:
			return bad()
		}
	}
	if sep {
		return bad()
	}
	return nil
}
