package runtime

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/runcopts"
	"github.com/cleatproject/cleat/proto/shimapi"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// CreateOptions describe a task to be made.
type CreateOptions struct {
	ID string
	// Spec is the OCI runtime spec as JSON.
	Spec []byte
	// Rootfs is mounted by the shim at the bundle's rootfs directory.
	Rootfs                []mount.Mount
	Stdin, Stdout, Stderr string
	Terminal              bool
	// Checkpoint is a directory to restore from; optional.
	Checkpoint string
	// Restore, where set, fills a directory to restore from, which goes with the task.
	Restore func(ctx context.Context, dir string) error
	// Runtime is a runtime name or a shim's absolute path; optional.
	Runtime string
	// Options are the runtime's own; optional.
	Options *types.Any
	// Join is where a shim runs already that is to hold the task; nil for a shim of the task's own.
	Join *Join
	// Late, where set, is called while cleat's shim starts, or before another does, to fill in what
	// the fields above, but for ID, Runtime and Options, still lack: work that need not wait for the
	// shim, nor the shim for it.
	Late func(context.Context, *CreateOptions) error
}

// Join names a shim that holds other tasks too.
type Join struct {
	// Address is of the form of Sandbox.Address, or bare.
	Address string
	// Version is that of the task API there; 0 is 3.
	Version uint32
	// Binary cleans up by its delete verb when the shim dies; empty where it takes all along.
	Binary string
}

// runcOptionsURL names the options that runc-like shims take.
const runcOptionsURL = "containerd.runc.v1.Options"

// Create launches a shim and has it create the container, calling cleat's create verb through
// shim/create.go. The task is invisible and would not survive a restart until Commit. On any error
// or when ctx ends nothing is left behind.
func (m *Manager) Create(ctx context.Context, namespace string, o CreateOptions) (*Task, error) {
	return m.make(ctx, namespace, o, (*Task).create)
}

// Run is Create and Start; with cleat's own shim in one invocation of the OCI runtime.
func (m *Manager) Run(ctx context.Context, namespace string, o CreateOptions) (*Task, error) {
	return m.make(ctx, namespace, o, (*Task).run)
}

// make is the walk both share: bundle, shim, first call. begin makes the container.
func (m *Manager) make(
	ctx context.Context, namespace string, o CreateOptions,
	begin func(*Task, context.Context, *conn, *task.CreateTaskRequest) error,
) (_ *Task, err error) {
	binary, err := m.binaryFor(o)
	if err != nil {
		return nil, err
	}
	options, err := m.fillOptions(o, binary)
	if err != nil {
		return nil, err
	}
	var u undo.Stack
	defer func() { err = errors.Join(err, u.Run()) }()
	leave, err := m.gates.create.Enter(ctx)
	if err != nil {
		return nil, fmt.Errorf("create task %s: %w", o.ID, err)
	}
	defer leave()

	t := m.newTask(m.bundleOf(namespace, o.ID), binary, Info{
		Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Terminal: o.Terminal,
		Runtime: o.Runtime, Link: Connecting,
	})
	if err := m.add(t); err != nil {
		return nil, err
	}
	u.Push("forget task", func() error { m.forget(t); return nil })
	if !native(binary) && o.Late != nil {
		// Shims may read the spec when they start, for the annotations that group them.
		if err := t.furnish(ctx, &o); err != nil {
			return nil, err
		}
	}
	if err := t.bundle.create(o.Spec, o.Runtime, binary); err != nil {
		return nil, err
	}
	u.Push("remove bundle", t.clear)
	if err := t.furnishCheckpoint(ctx, &o); err != nil {
		return nil, err
	}
	s, err := m.shimFor(ctx, t.bundle, binary, options, o)
	if err != nil {
		return nil, fmt.Errorf("launch shim for %s: %w", o.ID, err)
	}
	u.Push("destroy task", func() error { return t.destroy(context.WithoutCancel(ctx), s) })
	c, err := t.reachNew(ctx, s)
	if err != nil {
		return nil, err
	}
	if native(binary) && o.Late != nil {
		if err := t.furnishBundle(ctx, &o); err != nil {
			return nil, err
		}
	}
	if err := begin(t, ctx, c, o.request(t.bundle, options)); err != nil {
		return nil, s.explain(fmt.Errorf("failed to create shim task: %w", err)) // a text that clients match
	}
	u.Release()
	m.watch(t, c)
	return t, nil
}

// request is what a shim is asked to make, in a bundle and with the runtime's options.
func (o *CreateOptions) request(b *bundle, options *types.Any) *task.CreateTaskRequest {
	return &task.CreateTaskRequest{
		Id: o.ID, Bundle: b.path, Rootfs: wireMounts(o.Rootfs), Terminal: o.Terminal,
		Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Checkpoint: o.Checkpoint, Options: options,
	}
}

// reachNew connects to a shim that was launched or joined just now.
func (t *Task) reachNew(ctx context.Context, s *shim) (*conn, error) {
	c, err := dial(ctx, s.address)
	if err != nil {
		return nil, s.explain(fmt.Errorf("reach shim of %s: %w", t.id, err))
	}
	t.adoptConn(c, s)
	if !c.native {
		t.meet(ctx, c)
	}
	return c, nil
}

// binaryFor is the shim binary of a task to be made.
func (m *Manager) binaryFor(o CreateOptions) (string, error) {
	if o.Join != nil {
		return o.Join.Binary, nil
	}
	return m.resolve(o.Runtime)
}

// shimFor launches a shim for a bundle, or joins the one that is asked for.
func (m *Manager) shimFor(ctx context.Context, b *bundle, binary string, options *types.Any, o CreateOptions) (*shim, error) {
	if o.Join == nil {
		return m.launch(ctx, b, binary, options)
	}
	addr, err := joinAddress(o.Join.Address, o.Join.Version)
	if err != nil {
		return nil, err
	}
	return &shim{bundle: b, address: addr}, b.writeAddress(addr)
}

// meet asks a shim for its version, and for its pid, which this process knows of its own children
// only. A foreign one that does not say before it holds a container is asked again after a restart,
// see ask.
func (t *Task) meet(ctx context.Context, c *conn) {
	resp, err := call[task.ConnectResponse](ctx, c, quickCall, "Connect", &task.ConnectRequest{Id: t.id})
	if err != nil {
		t.m.cfg.Log.Debug("a shim does not tell its pid", "id", t.id, "namespace", t.namespace, "error", err)
		return
	}
	c.pid.Store(int32(resp.ShimPid))
	t.update(func(i *Info) { i.ShimPid, i.ShimVersion = resp.ShimPid, resp.Version })
}

// furnish has Late fill in what the request still lacks.
func (t *Task) furnish(ctx context.Context, o *CreateOptions) error {
	if err := o.Late(ctx, o); err != nil {
		return err
	}
	t.update(func(i *Info) { i.Stdin, i.Stdout, i.Stderr, i.Terminal = o.Stdin, o.Stdout, o.Stderr, o.Terminal })
	return nil
}

// furnishBundle is furnish for a bundle that is there without its spec.
func (t *Task) furnishBundle(ctx context.Context, o *CreateOptions) error {
	if err := t.furnish(ctx, o); err != nil {
		return err
	}
	return t.bundle.writeSpec(o.Spec)
}

// furnishCheckpoint has Restore fill the directory to restore from, where there is to be one.
func (t *Task) furnishCheckpoint(ctx context.Context, o *CreateOptions) (err error) {
	if o.Restore == nil {
		return nil
	}
	if o.Checkpoint, err = t.Scratch("checkpoint"); err != nil {
		return err
	}
	if err := o.Restore(ctx, o.Checkpoint); err != nil {
		return fmt.Errorf("restore task %s: %w", t.id, err)
	}
	return nil
}

// create has the shim create the container.
func (t *Task) create(ctx context.Context, c *conn, req *task.CreateTaskRequest) error {
	resp, err := call[task.CreateTaskResponse](ctx, c, runtimeCall, "Create", req)
	if err != nil {
		return err
	}
	t.update(func(i *Info) {
		i.Pid = resp.Pid
		if i.Status == types.Status_UNKNOWN {
			i.Status = types.Status_CREATED
		}
	})
	if c.native {
		t.meet(ctx, c)
	}
	return nil
}

// run has the shim create and start the container.
func (t *Task) run(ctx context.Context, c *conn, req *task.CreateTaskRequest) error {
	if c.native {
		resp, err := callNative[shimapi.RunResponse](ctx, c, runtimeCall, "Run", &shimapi.RunRequest{Create: req})
		if err != nil {
			return err
		}
		t.setRunning(resp.Pid)
		t.update(func(i *Info) { i.StartedAt, i.ShimVersion = resp.StartedAt.Time(), resp.Version })
		return nil
	}
	if err := t.create(ctx, c, req); err != nil {
		return err
	}
	return t.start(ctx, c)
}

// fillOptions gives runc-like runtimes a state directory of this daemon's own.
func (m *Manager) fillOptions(o CreateOptions, binary string) (*types.Any, error) {
	root := filepath.Join(m.cfg.State, "runc") // shims add the namespace
	if o.Options == nil || o.Options.TypeUrl == "" {
		if !native(binary) && filepath.Base(binary) != "containerd-shim-runc-v2" {
			return nil, nil
		}
		return encodeOptions(&runcopts.Options{Root: root})
	}
	if o.Options.TypeUrl != runcOptionsURL {
		return o.Options, nil
	}
	var opts runcopts.Options
	if err := opts.Unmarshal(o.Options.Value); err != nil {
		return nil, fmt.Errorf("runtime options of %s: %w: %w", o.ID, err, errdefs.ErrInvalidArgument)
	}
	if opts.Root != "" {
		return o.Options, nil
	}
	opts.Root = root
	return encodeOptions(&opts)
}

func encodeOptions(opts *runcopts.Options) (*types.Any, error) {
	data, err := rpc.Marshal(opts)
	if err != nil {
		return nil, err
	}
	return &types.Any{TypeUrl: runcOptionsURL, Value: data}, nil
}

func wireMounts(mounts []mount.Mount) []*types.Mount {
	out := make([]*types.Mount, len(mounts))
	for i, m := range mounts {
		out[i] = &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options}
	}
	return out
}
