package shim

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	runc "github.com/containerd/go-runc"

	"github.com/cleatproject/cleat/reaper"
)

const (
	// invocationVar marks the commands of one invocation; it is removed before they are started.
	invocationVar = "CLEAT_INVOCATION="
	// outputLimit bounds the wait for the output of a command that has ended while other processes hold the
	// output open.
	outputLimit = time.Second
)

// monitor starts the programs that the shim runs, and is go-runc's process monitor: the reaper, which collects them
// with all other children of the process. It adds what a shim needs:
//
//   - Every program gets the environment of the shim without the shim's own variables.
//   - Output that no caller reads is sent to /dev/null. go-runc collects it by a pipe, which a process left in the
//     background would hold open.
//   - The outcome of each invocation is kept in full. Most of go-runc's methods return text only.
type monitor struct {
	*reaper.Reaper
	env []string

	mu    sync.Mutex
	last  uint64
	calls map[string]*invocation // in progress, by their marks
}

var _ runc.ProcessMonitor = (*monitor)(nil)

// invocation is one call of go-runc. It belongs to the goroutine of the call.
type invocation struct {
	output bool // the caller reads what the command prints

	cmd    *exec.Cmd // nil if the call failed before the start
	err    error     // of the start or the wait
	status int       // the exit status, if err is nil
}

// newMonitor returns the monitor for programs with the environment environ, less the variables for the shim
// alone: one P is right for a process that waits, and slow for one that works.
func newMonitor(r *reaper.Reaper, environ []string) *monitor {
	env := slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		return strings.HasPrefix(v, "GOMAXPROCS=") || strings.HasPrefix(v, "NOTIFY_SOCKET=") || strings.HasPrefix(v, "CLEAT_")
	})
	return &monitor{Reaper: r, env: env, calls: make(map[string]*invocation)}
}

// Spawn calls the reaper's Spawn. A command without an environment gets the monitor's.
func (m *monitor) Spawn(cmd *exec.Cmd) (*reaper.Child, error) {
	if cmd.Env == nil {
		cmd.Env = m.env
	}
	return m.Reaper.Spawn(cmd)
}

// follow calls call, which runs one command by go-runc with the context it is given, and keeps the outcome in inv.
func (m *monitor) follow(ctx context.Context, inv *invocation, call func(context.Context) error) error {
	m.mu.Lock()
	m.last++
	mark := invocationVar + strconv.FormatUint(m.last, 10)
	m.calls[mark] = inv
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.calls, mark)
		m.mu.Unlock()
	}()
	return call(runc.WithExtraEnv(ctx, mark))
}

// marked returns the invocation of a command that is about to be started.
func (m *monitor) marked(cmd *exec.Cmd) *invocation {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range slices.Backward(cmd.Env) { // go-runc appends the mark
		if inv, ok := m.calls[v]; ok {
			inv.cmd = cmd
			return inv
		}
	}
	return &invocation{cmd: cmd, output: true}
}

// started returns the invocation of a command that was started.
func (m *monitor) started(cmd *exec.Cmd) *invocation {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, inv := range m.calls {
		if inv.cmd == cmd {
			return inv
		}
	}
	return &invocation{cmd: cmd}
}

// Start implements go-runc's ProcessMonitor.
func (m *monitor) Start(cmd *exec.Cmd) (chan runc.Exit, error) {
	inv := m.marked(cmd)
	cmd.Env = m.env
	cmd.WaitDelay = outputLimit
	if _, inherited := cmd.Stdout.(*os.File); !inherited && !inv.output {
		cmd.Stdout = nil
	}
	if _, inherited := cmd.Stderr.(*os.File); !inherited {
		cmd.Stderr = nil
	}
	exits, err := m.Reaper.Start(cmd)
	inv.err = err
	return exits, err
}

// Wait implements go-runc's ProcessMonitor.
func (m *monitor) Wait(cmd *exec.Cmd, exits chan runc.Exit) (int, error) {
	status, err := m.Reaper.Wait(cmd, exits)
	inv := m.started(cmd)
	inv.status, inv.err = status, err
	return status, err
}
