package shim

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatproject/cleat/proto/shimapi"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/reaper"
	"github.com/cleatproject/cleat/shim/stdio"
)

// process is a container's init or an exec'd process.
type process struct {
	container *container
	execID    string // empty for the init
	stdio     stdio.Paths

	// op is held by the caller that works on the process with the OCI runtime, which may take long.
	op chan struct{}

	// exited is closed once the exit is recorded and announced, gone when the process was deleted.
	exited chan struct{}
	gone   chan struct{}

	// mu guards what follows; it is never held across a system call that can block.
	mu        sync.Mutex
	state     state
	pid       int
	child     *reaper.Child
	io        *stdio.Streams
	spec      *specs.Process // of an exec'd process
	startedAt time.Time
	exit      reaper.Exit
	held      *reaper.Exit
	// stdinClosed reports that CloseIO was called before the process was started.
	stdinClosed bool
	// size is the one that ResizePty set before the process was started; zero if it did not.
	size terminalSize
}

// terminalSize is the size of a terminal in cells.
type terminalSize struct{ width, height uint32 }

func newProcess(c *container, execID string, paths stdio.Paths, s state) *process {
	return &process{
		container: c, execID: execID, stdio: paths, state: s,
		op:     make(chan struct{}, 1),
		exited: make(chan struct{}), gone: make(chan struct{}),
	}
}

// id returns the name of the process in events.
func (p *process) id() string {
	if p.execID == "" {
		return p.container.id
	}
	return p.execID
}

// acquire waits for exclusive use of the process, or the end of ctx.
func (p *process) acquire(ctx context.Context) (release func(), err error) {
	select {
	case p.op <- struct{}{}:
		return func() { <-p.op }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for another operation on %s: %w", p.id(), ctx.Err())
	}
}

// stepLocked moves the state. The caller holds mu.
func (p *process) stepLocked(e event) (effect, error) {
	next, eff, err := step(p.state, e)
	if err != nil {
		return none, err
	}
	p.state = next
	return eff, nil
}

// snapshot returns the state and the running child, if there is one.
func (p *process) snapshot() (state, *reaper.Child) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state, p.child
}

// stateResponse never blocks.
func (p *process) stateResponse() *task.StateResponse {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &task.StateResponse{
		Id: p.container.id, Bundle: p.container.bundle, ExecId: p.execID,
		Pid: uint32(p.pid), Status: p.state.status(),
		Stdin: p.stdio.Stdin, Stdout: p.stdio.Stdout, Stderr: p.stdio.Stderr, Terminal: p.stdio.Terminal,
		ExitStatus: uint32(p.exit.Status), ExitedAt: types.FromTime(p.exit.At),
	}
}

// native returns the process in the form of cleat.shim.v1.
func (p *process) native() *shimapi.Process {
	oom := p.execID == "" && p.container.oomKilled()
	p.mu.Lock()
	defer p.mu.Unlock()
	return &shimapi.Process{
		Id: p.container.id, ExecId: p.execID, Bundle: p.container.bundle,
		Pid: uint32(p.pid), Status: p.state.status(),
		Stdin: p.stdio.Stdin, Stdout: p.stdio.Stdout, Stderr: p.stdio.Stderr, Terminal: p.stdio.Terminal,
		ExitStatus: uint32(p.exit.Status), ExitedAt: types.FromTime(p.exit.At),
		StartedAt: types.FromTime(p.startedAt), OomKilled: oom,
	}
}

// wait returns the exit once it is recorded, or ErrNotFound if the process is deleted before.
func (p *process) wait(ctx context.Context) (reaper.Exit, error) {
	select {
	case <-p.exited:
	case <-p.gone:
		select {
		case <-p.exited:
		default:
			return reaper.Exit{}, fmt.Errorf("process %s was deleted: %w", p.id(), errdefs.ErrNotFound)
		}
	case <-ctx.Done():
		return reaper.Exit{}, fmt.Errorf("wait for exit of %s: %w", p.id(), ctx.Err())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exit, nil
}

// stdioOwner returns the user id that a request's FIFOs must belong to, or "" for no condition. The daemon sets it
// for users whom its configuration limits.
func stdioOwner(ctx context.Context) string {
	uid, _ := ttrpc.GetMetadataValue(ctx, shimapi.StdioOwnerKey)
	return uid
}
