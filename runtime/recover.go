package runtime

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/exitrecord"
	"github.com/cleatproject/cleat/proto/shimapi"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// unresponsiveAfter is how long a shim may take to answer at adoption before it is reported as
// unresponsive. It is still polled, and adopted once it answers.
const unresponsiveAfter = 2 * time.Second

// Recover enters a task for every bundle on disk, as unknown, and returns; the shims are dialled in
// the background, all at once. Tasks that were never committed are removed, except for those that
// made reports as recorded: their daemon died just before it could commit them. made may be nil.
func (m *Manager) Recover(made func(namespace, id string) bool) error {
	found, sandboxes, err := m.bundles()
	if err != nil {
		return err
	}
	m.recoverSandboxes(sandboxes)
	for _, b := range found {
		t := m.newTask(b, b.read(shimBinaryFile), Info{Status: types.Status_UNKNOWN, Link: Connecting, Runtime: b.read(runtimeFile)})
		t.recovered = true
		if t.state, err = b.loadState(); err != nil {
			m.cfg.Log.Error("cannot use the state of a task; keeping the task", "id", t.id, "namespace", t.namespace, "error", err)
			t.state = bundleState{Committed: true, Phase: reported}
		}
		if !t.state.Committed && made != nil && made(t.namespace, t.id) {
			if err := t.advance(evCommitted, Exit{}, nil); err != nil {
				return fmt.Errorf("commit task %s: %w", t.id, err)
			}
		}
		pending := !t.state.Committed
		if err := m.add(t); err != nil {
			return err
		}
		if !pending {
			m.show(t)
		}
		m.resumeLog(b)
		m.spawn(func(ctx context.Context) {
			c := m.connect(ctx, t)
			if pending && ctx.Err() == nil {
				m.discard(ctx, t)
				return
			}
			if c != nil {
				m.watch(t, c)
			}
		})
	}
	return nil
}

// discard removes a task whose request was never answered.
func (m *Manager) discard(ctx context.Context, t *Task) {
	addr, err := t.bundle.readAddress()
	switch {
	case t.Info().Link == Dead: // and cleaned up after
		err = t.advance(evRemoved, t.Info().Exit, nil)
	case err == nil:
		err = t.destroy(context.WithoutCancel(ctx), &shim{bundle: t.bundle, address: addr})
	default:
		err = m.cleanUpExit(ctx, t)
	}
	if err := errors.Join(err, t.clear()); err != nil {
		m.cfg.Log.Error("cannot remove an incomplete task", "id", t.id, "namespace", t.namespace, "error", err)
	}
	m.forget(t)
}

// retryDelays are the delays between attempts to reach a shim whose socket exists but which refuses
// the connection for reasons other than its death.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// connect reaches the shim of t and returns the connection, or nil when the shim is dead (and has
// been cleaned up after) or the Manager closes.
func (m *Manager) connect(ctx context.Context, t *Task) *conn {
	t.setConn(nil, Connecting)
	revived := false
	for delay := firstRetry; ctx.Err() == nil && !t.isRemoving(); delay = min(2*delay, lastRetry) {
		c, err := m.reach(ctx, t)
		if err == nil {
			return c
		}
		if ctx.Err() != nil || t.isRemoving() {
			return nil
		}
		if gone(err) && !revived && m.revive(t) {
			revived = true
			continue
		}
		if gone(err) || errors.Is(err, errEmpty) {
			if err := m.cleanUpExit(ctx, t); err != nil && ctx.Err() == nil {
				m.cfg.Log.Error("cannot clean up after a dead shim", "id", t.id, "namespace", t.namespace, "error", err)
			}
			return nil
		}
		m.cfg.Log.Warn("cannot reach a shim, trying again", "id", t.id, "namespace", t.namespace, "error", err)
		t.setConn(nil, Unresponsive)
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
	return nil
}

// revive starts a new shim for a container whose shim died: the container does not depend on its
// shim if the kernel reports the exit of any process by its pidfd (6.15 and later). The new shim
// determines whether there is anything to adopt; if not, it holds no container. It reports whether a
// shim was started.
func (m *Manager) revive(t *Task) bool {
	leave, err := m.gates.create.Enter(m.ctx)
	if err != nil {
		return false
	}
	defer leave()
	t.cleaning.Lock()
	defer t.cleaning.Unlock()
	if t.isRemoving() {
		return false
	}
	binary := t.bundle.read(shimBinaryFile)
	if !native(binary) || !t.durable().Committed || t.bundle.has(exitrecord.FileName) {
		return false
	}
	old, err := t.bundle.readAddress()
	if err != nil {
		return false // the shim was never started
	}
	// Now: the new shim's address replaces the only record of this one.
	if err := removeSocket(old.Address); err != nil {
		m.cfg.Log.Warn("cannot remove a dead shim's socket", "id", t.id, "namespace", t.namespace, "error", err)
	}
	if err := t.setRevived(true); err != nil {
		m.cfg.Log.Warn("cannot write state; exit event may be lost", "id", t.id, "namespace", t.namespace, "error", err)
	}
	s, err := m.launchNative(t.bundle, binary, "CLEAT_ADOPT=1", evictEnv)
	if err != nil {
		m.cfg.Log.Warn("cannot start a new shim for a container whose shim died", "id", t.id, "namespace", t.namespace, "error", err)
		return false
	}
	m.cfg.Log.Warn("a shim died; started a new one for its container", "id", t.id, "namespace", t.namespace)
	t.mu.Lock()
	t.child = s.child
	t.mu.Unlock()
	return true
}

// errEmpty means that a shim lives but holds no container.
var errEmpty = errors.New("shim holds no container")

// reach dials the shim once and takes over its report. It waits for an answer as long as the
// connection lasts.
func (m *Manager) reach(ctx context.Context, t *Task) (*conn, error) {
	addr, err := t.bundle.readAddress()
	if err != nil {
		return nil, err // no file: the shim was never started
	}
	dialCtx, cancel := context.WithTimeout(ctx, quickCall)
	defer cancel()
	c, err := dial(dialCtx, addr)
	if err != nil {
		return nil, err
	}
	slow := time.AfterFunc(unresponsiveAfter, func() { t.setLink(Unresponsive) })
	p, err := t.askShim(ctx, c)
	slow.Stop()
	if errors.Is(err, errEmpty) && !c.joined {
		// An earlier daemon died between Delete and Shutdown.
		if nerr := t.emptyShim(); nerr != nil {
			m.cfg.Log.Warn("cannot write state; exit event may be published twice", "id", t.id, "namespace", t.namespace, "error", nerr)
		}
		_, serr := call[types.Empty](ctx, c, quickCall, "Shutdown", &task.ShutdownRequest{Id: t.id, Now: true})
		if serr != nil && !c.isClosed() {
			m.cfg.Log.Warn("cannot shut down an empty shim", "id", t.id, "namespace", t.namespace, "error", serr)
		}
	}
	if err != nil {
		return nil, errors.Join(err, c.client.Close())
	}
	if err := t.apply(p); err != nil {
		return nil, errors.Join(err, c.client.Close())
	}
	// From now on it reports its own actions.
	if err := t.setRevived(false); err != nil {
		return nil, errors.Join(err, c.client.Close())
	}
	c.pid.Store(int32(p.shimPid))
	t.update(func(i *Info) { i.ShimPid, i.ShimVersion, i.ShimAddress = p.shimPid, p.shimVersion, addr.Address })
	t.setConn(c, Ready)
	return c, nil
}

// shimProcess is an init as its shim reports it.
type shimProcess struct {
	shimPid               uint32
	shimVersion           string
	pid                   uint32
	status                types.Status
	exitStatus            uint32
	exitedAt, startedAt   time.Time
	stdin, stdout, stderr string
	terminal, oomKilled   bool
}

// askShim requests the shim's report of its init, by the native call or by the task API.
func (t *Task) askShim(ctx context.Context, c *conn) (*shimProcess, error) {
	if !c.native {
		return t.askForeign(ctx, c)
	}
	resp, err := callNative[shimapi.StatusResponse](ctx, c, 0, "Status", &shimapi.StatusRequest{TtrpcAddress: t.m.cfg.TTRPCAddress})
	if err != nil {
		return nil, err
	}
	for _, p := range resp.Processes {
		if p.Id == t.id && p.ExecId == "" {
			return &shimProcess{
				shimPid: resp.ShimPid, shimVersion: resp.Version,
				pid: p.Pid, status: p.Status, exitStatus: p.ExitStatus,
				exitedAt: p.ExitedAt.Time(), startedAt: p.StartedAt.Time(),
				stdin: p.Stdin, stdout: p.Stdout, stderr: p.Stderr,
				terminal: p.Terminal, oomKilled: p.OomKilled,
			}, nil
		}
	}
	return nil, errEmpty
}

func (t *Task) askForeign(ctx context.Context, c *conn) (*shimProcess, error) {
	conn, err := call[task.ConnectResponse](ctx, c, 0, "Connect", &task.ConnectRequest{Id: t.id})
	if errdefs.IsNotImplemented(err) && c.service == task.V3Service {
		c.service = task.V2Service
		conn, err = call[task.ConnectResponse](ctx, c, 0, "Connect", &task.ConnectRequest{Id: t.id})
	}
	if err != nil {
		return nil, err
	}
	st, err := call[task.StateResponse](ctx, c, 0, "State", &task.StateRequest{Id: t.id})
	if errdefs.IsNotFound(err) {
		return nil, errEmpty
	}
	if err != nil {
		return nil, err
	}
	return &shimProcess{
		shimPid: conn.ShimPid, shimVersion: conn.Version,
		pid: st.Pid, status: st.Status, exitStatus: st.ExitStatus, exitedAt: st.ExitedAt.Time(),
		stdin: st.Stdin, stdout: st.Stdout, stderr: st.Stderr, terminal: st.Terminal,
	}, nil
}
