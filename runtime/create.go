package runtime

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/runcopts"
	"github.com/cleatproject/cleat/proto/shimapi"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// LaunchOptions describe the shim of a task to be created.
type LaunchOptions struct {
	// ID is the container's, and the task's.
	ID string
	// Runtime is a runtime name or a shim's absolute path; optional.
	Runtime string
	// Options are the runtime's own; optional.
	Options *types.Any
	// Join names a shim that runs already and is to hold the task; nil for a shim of the task's own.
	Join *Join
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

// CreateOptions describe the container of a task.
type CreateOptions struct {
	// Spec is the OCI runtime spec as JSON.
	Spec []byte
	// Rootfs is mounted by the shim at the bundle's rootfs directory.
	Rootfs                []mount.Mount
	Stdin, Stdout, Stderr string
	Terminal              bool
	// Checkpoint is a directory to restore from; optional. See Launch.Scratch.
	Checkpoint string
}

// runcOptionsURL names the options that runc-like shims take.
const runcOptionsURL = "containerd.runc.v1.Options"

// Launch is a task whose container is not created yet. It has one user at a time, and ends with
// Create, Run or Close.
type Launch struct {
	t       *Task
	options *types.Any
	join    *Join
	binary  string
	shim    *shim // nil until it is started
	undo    undo.Stack
	leave   func() // the admission
}

// Launch begins to create a task: it reserves the name, makes the bundle and starts cleat's shim,
// which starts up while the caller prepares the container. The shim of another project is started by
// Create or Run: it may read the spec. The task is invisible and would not survive a restart until
// Commit. The caller has to call Close, which removes everything unless Create or Run has returned a
// task. Errors are errdefs.ErrAlreadyExists for a name in use, ErrNotFound and ErrInvalidArgument for
// a runtime or options that cannot be used.
func (m *Manager) Launch(ctx context.Context, namespace string, o LaunchOptions) (_ *Launch, err error) {
	binary, err := m.binaryFor(o)
	if err != nil {
		return nil, err
	}
	options, err := m.fillOptions(o, binary)
	if err != nil {
		return nil, err
	}
	leave, err := m.gates.create.Enter(ctx)
	if err != nil {
		return nil, fmt.Errorf("create task %s: %w", o.ID, err)
	}
	l := &Launch{options: options, join: o.Join, binary: binary, leave: sync.OnceFunc(leave)}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	t := m.newTask(m.bundleOf(namespace, o.ID), binary, Info{Runtime: o.Runtime, Link: Connecting})
	if err := m.add(t); err != nil {
		return nil, err
	}
	l.t = t
	l.undo.Push("forget task", func() error { m.forget(t); return nil })
	if err := t.bundle.create(o.Runtime, binary); err != nil {
		return nil, err
	}
	l.undo.Push("remove bundle", t.clear)
	if native(binary) {
		return l, l.start(ctx)
	}
	return l, nil
}

// Close ends a launch, and removes the task unless Create or Run has returned it.
func (l *Launch) Close() error {
	err := l.undo.Run()
	l.leave()
	return err
}

// Scratch creates a directory on disk that goes with the task at the latest.
func (l *Launch) Scratch(name string) (string, error) { return l.t.Scratch(name) }

// Create has the shim create the container, calling cleat's create verb through shim/create.go. On
// any error or when ctx ends nothing is left after Close.
func (l *Launch) Create(ctx context.Context, o CreateOptions) (*Task, error) {
	return l.begin(ctx, o, (*Task).create)
}

// Run is Create and Task.Start; with cleat's own shim in one invocation of the OCI runtime.
func (l *Launch) Run(ctx context.Context, o CreateOptions) (*Task, error) {
	return l.begin(ctx, o, (*Task).run)
}

// begin completes the bundle and has the shim make the container.
func (l *Launch) begin(
	ctx context.Context, o CreateOptions, create func(*Task, context.Context, *conn, *task.CreateTaskRequest) error,
) (*Task, error) {
	t := l.t
	t.update(func(i *Info) { i.Stdin, i.Stdout, i.Stderr, i.Terminal = o.Stdin, o.Stdout, o.Stderr, o.Terminal })
	if err := t.bundle.writeSpec(o.Spec); err != nil {
		return nil, err
	}
	if l.shim == nil {
		if err := l.start(ctx); err != nil {
			return nil, err
		}
	}
	c, err := t.reachNew(ctx, l.shim)
	if err != nil {
		return nil, err
	}
	if err := create(t, ctx, c, o.request(t, l.options)); err != nil {
		return nil, l.shim.explain(fmt.Errorf("failed to create shim task: %w", err)) // a text that clients match
	}
	l.undo.Release()
	l.leave()
	t.m.watch(t, c)
	return t, nil
}

// start starts the shim, or joins the one that the request names.
func (l *Launch) start(ctx context.Context) (err error) {
	t := l.t
	if l.shim, err = t.m.shimFor(ctx, t.bundle, l.binary, l.options, l.join); err != nil {
		return fmt.Errorf("launch shim for %s: %w", t.id, err)
	}
	l.undo.Push("destroy task", func() error { return t.destroy(context.WithoutCancel(ctx), l.shim) })
	return nil
}

// request is what the shim of a task is asked to create, with the runtime's options.
func (o *CreateOptions) request(t *Task, options *types.Any) *task.CreateTaskRequest {
	return &task.CreateTaskRequest{
		Id: t.id, Bundle: t.bundle.path, Rootfs: wireMounts(o.Rootfs), Terminal: o.Terminal,
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
		t.identify(ctx, c)
	}
	return c, nil
}

// binaryFor returns the shim binary of a task to be created.
func (m *Manager) binaryFor(o LaunchOptions) (string, error) {
	if o.Join != nil {
		return o.Join.Binary, nil
	}
	return m.resolve(o.Runtime)
}

// shimFor launches a shim for a bundle, or joins the one that join names.
func (m *Manager) shimFor(ctx context.Context, b *bundle, binary string, options *types.Any, join *Join) (*shim, error) {
	if join == nil {
		return m.launch(ctx, b, binary, options)
	}
	addr, err := joinAddress(join.Address, join.Version)
	if err != nil {
		return nil, err
	}
	return &shim{bundle: b, address: addr}, b.writeAddress(addr)
}

// identify asks a shim for its version, and for its pid, which this process knows of its own children
// only. A foreign one that does not say before it holds a container is asked again after a restart,
// see ask.
func (t *Task) identify(ctx context.Context, c *conn) {
	resp, err := call[task.ConnectResponse](ctx, c, quickCall, "Connect", &task.ConnectRequest{Id: t.id})
	if err != nil {
		t.m.cfg.Log.Debug("a shim does not report its pid", "id", t.id, "namespace", t.namespace, "error", err)
		return
	}
	c.pid.Store(int32(resp.ShimPid))
	t.update(func(i *Info) { i.ShimPid, i.ShimVersion = resp.ShimPid, resp.Version })
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
		t.identify(ctx, c)
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
func (m *Manager) fillOptions(o LaunchOptions, binary string) (*types.Any, error) {
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
