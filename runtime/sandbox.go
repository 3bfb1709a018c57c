package runtime

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/sandbox"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// NotReady is the state of a sandbox that cannot hold containers, in the words of the CRI.
const NotReady = "SANDBOX_NOTREADY"

// SandboxOptions describe a sandbox to be created.
type SandboxOptions struct {
	ID string
	// Spec is the client's OCI spec of the sandbox, as JSON; optional. Shims read its annotations
	// when they start.
	Spec []byte
	// Rootfs are mounts for the shim, which must be of a kind that uses them.
	Rootfs []mount.Mount
	// Runtime is a runtime name or a shim's absolute path; optional.
	Runtime string
	// Options are the runtime's own; optional.
	Options *types.Any
	// NetNS is the path of a network namespace; optional.
	NetNS       string
	Annotations map[string]string
}

// Sandbox is a shim that represents a group of containers. It is a handle: its only state is its
// bundle, so it is the same before and after a restart. Its methods dial the shim, and may be
// called concurrently.
type Sandbox struct {
	m *Manager
	b *bundle
}

// CreateSandbox starts a shim and has it create a sandbox. On any error nothing is left behind.
func (m *Manager) CreateSandbox(ctx context.Context, namespace string, o SandboxOptions) (_ *Sandbox, err error) {
	binary, err := m.resolve(o.Runtime)
	if err != nil {
		return nil, err
	}
	s := &Sandbox{m, m.bundleIn(sandboxesDir, namespace, o.ID)}
	spec := o.Spec
	if len(spec) == 0 {
		spec = []byte("{}")
	}
	var u undo.Stack
	defer func() { err = errors.Join(err, u.Run()) }()
	if err := s.b.create(o.Runtime, binary); err != nil {
		return nil, fmt.Errorf("create sandbox: %w", err)
	}
	u.Push("remove sandbox", func() error { return s.destroy(context.WithoutCancel(ctx)) })
	if err := s.b.writeSpec(spec); err != nil {
		return nil, fmt.Errorf("create sandbox: %w", err)
	}
	started, err := m.launch(ctx, s.b, binary, o.Options)
	if err != nil {
		return nil, fmt.Errorf("launch shim for sandbox %s: %w", o.ID, err)
	}
	_, err = askSandbox[types.Empty](ctx, s, runtimeCall, "CreateSandbox", &sandbox.CreateSandboxRequest{
		SandboxId: o.ID, BundlePath: s.b.path, Rootfs: wireMounts(o.Rootfs), Options: o.Options, NetnsPath: o.NetNS, Annotations: o.Annotations,
	})
	if errdefs.IsNotImplemented(err) {
		return nil, fmt.Errorf("create sandbox %s: runtime %s has no sandboxes: %w", o.ID, o.Runtime, err)
	}
	if err != nil {
		return nil, started.explain(fmt.Errorf("create: %w", err))
	}
	if err := s.b.writeState(bundleState{Committed: true}); err != nil {
		return nil, fmt.Errorf("commit sandbox %s: %w", o.ID, err)
	}
	u.Release()
	return s, nil
}

// Sandbox returns a sandbox that was created, or errdefs.ErrNotFound.
func (m *Manager) Sandbox(namespace, id string) (*Sandbox, error) {
	s := &Sandbox{m, m.bundleIn(sandboxesDir, namespace, id)}
	if s.b.has(shimBinaryFile) {
		if state, err := s.b.readState(); err != nil {
			return nil, err
		} else if state.Committed {
			return s, nil
		}
	}
	return nil, fmt.Errorf("sandbox %s is not running: %w", id, reason.SandboxNotFound)
}

// recoverSandboxes removes the sandboxes whose creation was never answered. The others need no recovery.
func (m *Manager) recoverSandboxes(found []*bundle) {
	for _, b := range found {
		state, err := b.loadState()
		if err != nil {
			m.cfg.Log.Error("cannot use the state of a sandbox; keeping the sandbox", "id", b.id, "namespace", b.namespace, "error", err)
		}
		if err != nil || state.Committed {
			continue
		}
		m.spawn(func(ctx context.Context) {
			if err := (&Sandbox{m, b}).destroy(ctx); err != nil {
				m.cfg.Log.Error("cannot remove an incomplete sandbox", "id", b.id, "namespace", b.namespace, "error", err)
			}
		})
	}
}

// errSandboxGone means that a sandbox's shim died.
var errSandboxGone = fmt.Errorf("shim is dead, only shutdown is possible: %w", errdefs.ErrFailedPrecondition)

// dial connects to the shim; errSandboxGone if it died.
func (s *Sandbox) dial(ctx context.Context) (*conn, address, error) {
	addr, err := s.b.readAddress()
	if err != nil {
		return nil, addr, err
	}
	ctx, cancel := context.WithTimeout(ctx, quickCall)
	defer cancel()
	c, err := dial(ctx, addr)
	if err != nil && gone(err) {
		err = errSandboxGone
	}
	return c, addr, err
}

// askSandbox calls the shim's sandbox service with a deadline; 0 is none but the context's.
func askSandbox[Resp any, PResp rpc.Pointer[Resp]](
	ctx context.Context, s *Sandbox, limit time.Duration, method string, req rpc.Message,
) (_ *Resp, err error) {
	c, _, err := s.dial(ctx)
	if err == nil {
		defer func() { err = errors.Join(err, c.client.Close()) }()
		var resp *Resp
		if resp, err = callService[Resp, PResp](ctx, c, limit, sandbox.Service, method, req); err == nil {
			return resp, nil
		}
		if c.isClosed() && ctx.Err() == nil {
			err = errSandboxGone
		}
	}
	return nil, fmt.Errorf("sandbox %s: %w", s.b.id, err)
}

// Address returns the address of the sandbox's shim, in the form that managers pass to clients, and
// the version of the task API that it uses.
func (s *Sandbox) Address() (address string, version uint32, err error) {
	a, err := s.b.readAddress()
	if err != nil {
		return "", 0, err
	}
	protocol := a.Protocol
	if protocol == "" {
		protocol = "ttrpc"
	}
	return protocol + "+" + a.Address, uint32(a.Version), nil
}

// Join returns how tasks of the sandbox's containers join its shim; nil if they do not. They do not
// if it is cleat's own: each gets a shim of its own, and none ends with another's.
func (s *Sandbox) Join() (*Join, error) {
	a, err := s.b.readAddress()
	if err != nil || a.Native {
		return nil, err
	}
	address, version, err := s.Address()
	return &Join{Address: address, Version: version, Binary: s.b.read(shimBinaryFile)}, err
}

// Start marks the sandbox as ready for containers.
func (s *Sandbox) Start(ctx context.Context) (*sandbox.StartSandboxResponse, error) {
	return askSandbox[sandbox.StartSandboxResponse](ctx, s, runtimeCall, "StartSandbox", &sandbox.SandboxRequest{SandboxId: s.b.id})
}

// Platform returns the platform of the sandbox's containers.
func (s *Sandbox) Platform(ctx context.Context) (*sandbox.Platform, error) {
	resp, err := askSandbox[sandbox.PlatformResponse](ctx, s, quickCall, "Platform", &sandbox.SandboxRequest{SandboxId: s.b.id})
	if err != nil {
		return nil, err
	}
	if resp.Platform == nil {
		return &sandbox.Platform{}, nil
	}
	return resp.Platform, nil
}

// Stop ends the sandbox; the shim kills what has not ended after the timeout. Idempotent, even if
// the shim is dead.
func (s *Sandbox) Stop(ctx context.Context, timeout time.Duration) error {
	_, err := askSandbox[types.Empty](ctx, s, timeout+runtimeCall, "StopSandbox",
		&sandbox.StopSandboxRequest{SandboxId: s.b.id, TimeoutSecs: uint32(timeout / time.Second)})
	if errors.Is(err, errSandboxGone) {
		return nil
	}
	return err
}

// Wait waits for the end of the sandbox. A shim that died ended it with the published status 255.
func (s *Sandbox) Wait(ctx context.Context) (Exit, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(s.m.ctx, func() { cancel(errStopping) }) //nolint:contextcheck // the end of the Manager ends the wait as well
	defer stop()
	resp, err := askSandbox[sandbox.WaitSandboxResponse](ctx, s, 0, "WaitSandbox", &sandbox.SandboxRequest{SandboxId: s.b.id})
	switch {
	case errors.Is(context.Cause(ctx), errStopping):
		return Exit{}, fmt.Errorf("wait for sandbox %s: %w", s.b.id, errStopping)
	case errors.Is(err, errSandboxGone):
		return Exit{Status: 255, At: time.Now().UTC()}, nil
	case err != nil:
		return Exit{}, err
	}
	return Exit{Status: resp.ExitStatus, At: resp.ExitedAt.Time()}, nil
}

var errStopping = fmt.Errorf("daemon is stopping: %w", reason.DaemonStopping)

// Status returns the state of the sandbox. One whose shim died is not ready.
func (s *Sandbox) Status(ctx context.Context, verbose bool) (*sandbox.SandboxStatusResponse, error) {
	resp, err := askSandbox[sandbox.SandboxStatusResponse](ctx, s, quickCall, "SandboxStatus",
		&sandbox.SandboxStatusRequest{SandboxId: s.b.id, Verbose: verbose})
	if errors.Is(err, errSandboxGone) {
		return &sandbox.SandboxStatusResponse{SandboxId: s.b.id, State: NotReady}, nil
	}
	return resp, err
}

// Metrics reads the resource use of the sandbox; errdefs.ErrNotImplemented if its runtime cannot.
func (s *Sandbox) Metrics(ctx context.Context) (*sandbox.Metric, error) {
	resp, err := askSandbox[sandbox.SandboxMetricsResponse](ctx, s, quickCall, "SandboxMetrics", &sandbox.SandboxRequest{SandboxId: s.b.id})
	if err != nil {
		return nil, err
	}
	if resp.Metrics == nil {
		return &sandbox.Metric{}, nil
	}
	return resp.Metrics, nil
}

// Update notifies the shim of a changed record, a serialized containerd.types.Sandbox. A shim that
// does not implement it is not an error.
func (s *Sandbox) Update(ctx context.Context, record []byte, fields []string) error {
	_, err := askSandbox[types.Empty](ctx, s, runtimeCall, "UpdateSandbox",
		&sandbox.UpdateSandboxRequest{SandboxId: s.b.id, Sandbox: record, Fields: fields})
	if errdefs.IsNotImplemented(err) {
		return nil
	}
	return err
}

// Shutdown ends the sandbox with its shim and removes its bundle. It may be retried after any error.
func (s *Sandbox) Shutdown(ctx context.Context) error {
	_, err := askSandbox[types.Empty](ctx, s, runtimeCall, "ShutdownSandbox", &sandbox.SandboxRequest{SandboxId: s.b.id})
	if err != nil && !errors.Is(err, errSandboxGone) && !errdefs.IsNotFound(err) {
		return err
	}
	return s.destroy(context.WithoutCancel(ctx))
}

// destroy removes the shim and the bundle in any state.
func (s *Sandbox) destroy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, destroyLimit)
	defer cancel()
	c, addr, err := s.dial(ctx)
	switch {
	case err == nil:
		err = s.end(ctx, c)
	case errors.Is(err, errSandboxGone) || addr.Address == "":
		err = nil
	}
	if !addr.Native {
		if _, derr := s.m.deleteVerb(ctx, s.b); derr != nil {
			s.m.cfg.Log.Warn("cleaning up with the shim's delete verb", "sandbox", s.b.id, "namespace", s.b.namespace, "error", derr)
		}
	}
	return errors.Join(err, removeSocket(addr.Address), s.b.remove())
}

// end requests a shim to exit, and kills it if it does not.
func (s *Sandbox) end(ctx context.Context, c *conn) (err error) {
	defer func() { err = errors.Join(err, c.client.Close()) }()
	pid := 0
	if known, err := call[task.ConnectResponse](ctx, c, quickCall, "Connect", &task.ConnectRequest{Id: s.b.id}); err == nil {
		pid = int(known.ShimPid)
	}
	// Their errors do not matter: the shim must end in any case.
	_, _ = callService[types.Empty](ctx, c, quickCall, sandbox.Service, "ShutdownSandbox", &sandbox.SandboxRequest{SandboxId: s.b.id})
	_, _ = call[types.Empty](ctx, c, quickCall, "Shutdown", &task.ShutdownRequest{Id: s.b.id, Now: true})
	return s.m.endShim(s.b, c.closed, func() int { return pid }, func() error {
		if pid == 0 {
			return fmt.Errorf("pid of shim not reported: %w", errdefs.ErrUnavailable)
		}
		return killPid(pid, c)
	})
}
