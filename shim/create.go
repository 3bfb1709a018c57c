package shim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	runc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/identifier"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/runcopts"
	"github.com/cleatproject/cleat/proto/shimapi"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/reaper"
	"github.com/cleatproject/cleat/shim/cgroup"
	"github.com/cleatproject/cleat/shim/stdio"
)

// undoLimit bounds the undoing of a failed operation.
const undoLimit = 30 * time.Second

// Create creates the container; called by the daemon's runtime/create.go, it calls the OCI runtime.
// It succeeds completely or leaves nothing, even if the caller disconnects.
func (s *Server) Create(ctx context.Context, req *task.CreateTaskRequest) (*task.CreateTaskResponse, error) {
	p, err := s.create(ctx, req, "create")
	if err != nil {
		return nil, reason.Operation(fmt.Sprintf("create container %.80s", req.Id), err)
	}
	p.mu.Lock()
	pid := p.pid
	if _, err := p.stepLocked(evCreated); err != nil {
		p.mu.Unlock()
		return nil, err
	}
	s.publishCreated(p, req)
	p.mu.Unlock()
	if p.container.restore == nil { // else it has no process yet
		s.watch(p)
	}
	return &task.CreateTaskResponse{Pid: uint32(pid)}, nil
}

// Run creates and starts the container by one invocation of the OCI runtime.
func (s *Server) Run(ctx context.Context, req *shimapi.RunRequest) (*shimapi.RunResponse, error) {
	if req.Create == nil {
		return nil, fmt.Errorf("run: no container given: %w", errdefs.ErrInvalidArgument)
	}
	p, err := s.create(ctx, req.Create, "run")
	if err != nil {
		return nil, reason.Operation(fmt.Sprintf("run container %.80s", req.Create.Id), err)
	}
	defer s.watch(p)
	defer s.publishOOM(p.container) // kills before the watch began
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range []event{evCreated, evStart, evStarted} {
		if _, err := p.stepLocked(e); err != nil {
			return nil, err
		}
	}
	s.publishCreated(p, req.Create)
	s.publish("start", "TaskStart", &events.TaskStart{ContainerId: p.container.id, Pid: uint32(p.pid)})
	return &shimapi.RunResponse{Pid: uint32(p.pid), StartedAt: types.FromTime(p.startedAt), Version: s.version}, nil
}

func (s *Server) publishCreated(p *process, req *task.CreateTaskRequest) {
	s.publish("create", "TaskCreate", &events.TaskCreate{
		ContainerId: req.Id, Bundle: req.Bundle, Rootfs: req.Rootfs, Checkpoint: req.Checkpoint,
		Io:  &events.TaskIO{Stdin: req.Stdin, Stdout: req.Stdout, Stderr: req.Stderr, Terminal: req.Terminal},
		Pid: uint32(p.pid),
	})
}

// create does the work of Create and Run; verb is the OCI runtime's. The init is left in creating,
// unwatched.
func (s *Server) create(ctx context.Context, req *task.CreateTaskRequest, verb string) (_ *process, err error) {
	c, opts, err := s.prepare(req, stdioOwner(ctx))
	if err != nil {
		return nil, err
	}
	if c.restore != nil && verb == "run" {
		return nil, fmt.Errorf("restore it by create and start: %w", errdefs.ErrNotImplemented)
	}
	p := c.init
	if err := s.add(c); err != nil {
		return nil, err
	}
	var u undo.Stack
	defer func() { err = errors.Join(err, u.Run()) }()
	u.Push("forget container", func() error { s.remove(c); return nil })

	if opts.ShimCgroup != "" {
		if err := cgroup.Join(opts.ShimCgroup); err != nil {
			s.log.Warnf("join cgroup %s: %v", opts.ShimCgroup, err)
		}
	}
	if err := c.lock(); err != nil {
		return nil, err
	}
	u.Push("unlock bundle", c.unlock)
	if err := c.note(func(*handle) {}); err != nil {
		return nil, err
	}
	if len(req.Rootfs) > 0 {
		rootfs := c.file("rootfs")
		if err := mountRootfs(req.Rootfs, rootfs); err != nil {
			return nil, err
		}
		u.Push("unmount rootfs", func() error { return mount.UnmountAll(rootfs, unix.UMOUNT_NOFOLLOW) })
		c.mounted = true
	}
	io, err := stdio.Open(ctx, s.stdioEnv(c, opts), p.stdio)
	if err != nil {
		return nil, err
	}
	u.Push("close stdio", io.Close)
	if c.restore != nil { // Start creates the init
		p.mu.Lock()
		p.io = io
		p.mu.Unlock()
		if err := c.note(func(h *handle) { h.Mounted = c.mounted }); err != nil {
			return nil, err
		}
		u.Release()
		return p, nil
	}
	if err := s.launch(ctx, &u, p, io, verb, c.launchCall(verb, opts)); err != nil {
		return nil, err
	}
	if err := s.noteInit(p, verb == "run"); err != nil {
		return nil, err
	}
	u.Release()
	return p, nil
}

// prepare checks the request and creates the container, not yet registered.
func (s *Server) prepare(req *task.CreateTaskRequest, owner string) (*container, *runcopts.Options, error) {
	if err := identifier.Check(req.Id); err != nil {
		return nil, nil, err
	}
	if !filepath.IsAbs(req.Bundle) {
		return nil, nil, fmt.Errorf("bundle %q: want an absolute path: %w", req.Bundle, errdefs.ErrInvalidArgument)
	}
	opts, err := decodeOptions(req.Options)
	if err != nil {
		return nil, nil, err
	}
	image := req.Checkpoint
	if image == "" {
		image = opts.CriuImagePath
	}
	if err := checkRestore(image); err != nil {
		return nil, nil, err
	}
	if _, err := os.Stat(filepath.Join(req.Bundle, "config.json")); err != nil {
		return nil, nil, fmt.Errorf("bundle has no spec: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	c := &container{
		id: req.Id, bundle: filepath.Clean(req.Bundle),
		execs: make(map[string]*process), removal: newRemoval(),
	}
	c.runtime = &ociRuntime{
		monitor: s.monitor, binary: opts.BinaryName, bundle: c.bundle,
		root:          runtimeRoot(opts.Root, c.bundle, s.namespace),
		systemdCgroup: opts.SystemdCgroup,
	}
	if c.runtime.binary == "" {
		c.runtime.binary = defaultRuntime
	}
	c.handle = handle{
		Version: 1, ID: c.id, Binary: c.runtime.binary, Root: c.runtime.root, SystemdCgroup: c.runtime.systemdCgroup,
		Stdin: req.Stdin, Stdout: req.Stdout, Stderr: req.Stderr, Terminal: req.Terminal, StdioOwner: owner,
		IOUID: opts.IoUid, IOGID: opts.IoGid, ShimCgroup: opts.ShimCgroup,
	}
	if image != "" {
		c.restore = restoreOpts(image, c, opts)
	}
	c.init = newProcess(c, "", stdio.Paths{Stdin: req.Stdin, Stdout: req.Stdout, Stderr: req.Stderr, Terminal: req.Terminal, Owner: owner}, creating)
	return c, opts, nil
}

func (s *Server) stdioEnv(c *container, opts *runcopts.Options) stdio.Env {
	env := stdio.Env{Spawner: s.monitor, Environ: s.monitor.env, Log: s.log, Namespace: s.namespace, ID: c.id}
	if opts != nil {
		env.Bundle = c.bundle
		env.UID, env.GID = opts.IoUid, opts.IoGid
		c.ioUID, c.ioGID = opts.IoUid, opts.IoGid
	} else {
		env.UID, env.GID = c.ioUID, c.ioGID
	}
	return env
}

// launchCall invokes the OCI runtime for a new process, by one of go-runc's methods.
type launchCall func(ctx context.Context, rt *runc.Runc, io runc.IO, console runc.ConsoleSocket) error

// launchCall returns the call for verb, create or run.
func (c *container) launchCall(verb string, opts *runcopts.Options) launchCall {
	return func(ctx context.Context, rt *runc.Runc, io runc.IO, console runc.ConsoleSocket) error {
		o := &runc.CreateOpts{
			IO: io, PidFile: c.file(initPidFile), ConsoleSocket: console,
			NoPivot: opts.NoPivotRoot, NoNewKeyring: opts.NoNewKeyring, Detach: verb == "run",
		}
		if verb == "run" {
			_, err := rt.Run(ctx, c.id, c.bundle, o)
			return err
		}
		return rt.Create(ctx, c.id, c.bundle, o)
	}
}

// launch invokes the OCI runtime for a new container and takes over its init.
func (s *Server) launch(ctx context.Context, u *undo.Stack, p *process, io *stdio.Streams, verb string, call launchCall) error {
	c := p.container
	if err := os.Remove(c.file(initPidFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old pid: %w", err)
	}
	capture := s.reaper.Capture() // before the fork: an init may die before its pid is known
	defer capture.Close()
	u.Push("delete container", func() error {
		ctx, cancel := background(ctx, undoLimit)
		defer cancel()
		return c.removeFromRuntime(ctx)
	})
	child, err := c.invoke(ctx, capture, p, io, c.file(initPidFile), verb, call)
	if err != nil {
		if errors.Is(err, errdefs.ErrAlreadyExists) {
			// The id belongs to another container: do not touch it.
			c.removal.skip()
		}
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("caller has gone: %w", err)
	}
	groups, err := cgroup.Read(child.Pid())
	select {
	case <-child.Done(): // by `run`: anything read may belong to another process by now
		groups = ""
		if child.Exit().Status == killedStatus {
			groups = cgroup.MemoryOf(c.bundle, cgroup.UnifiedHost())
		}
	default:
		if err != nil {
			s.log.Warnf("cgroup of %s: %v", c.id, err)
		}
		if cgroup.Exiting(groups) {
			groups = cmp.Or(cgroup.MemoryOf(c.bundle, cgroup.UnifiedHost()), groups)
		}
	}
	c.handle.Cgroup = groups // the container is not registered yet
	s.setCgroup(c, groups)
	p.mu.Lock()
	p.pid, p.child, p.io = child.Pid(), child, io
	p.mu.Unlock()
	return nil
}

// setCgroup sets the container's cgroups from a result of Read.
func (s *Server) setCgroup(c *container, groups string) {
	cg := cgroup.Parse(groups, cgroup.UnifiedHost())
	c.mu.Lock()
	c.cgroup = cg
	c.mu.Unlock()
	s.watchOOM(c, cg)
}

// noteInit records what another shim must know of the init, before the init is reported to a
// client.
func (s *Server) noteInit(p *process, started bool) error {
	if started {
		p.startedAt = startTime(p.child)
	}
	begun, err := reaper.StartTime(p.pid)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("note init: %w", err)
	}
	select {
	case <-p.child.Done(): // the pid may belong to another process by now
		begun = 0
	default:
	}
	return p.container.note(func(h *handle) {
		h.Mounted, h.Pid, h.StartTime = p.container.mounted, p.pid, begun
		h.Started, h.StartedAt = started, p.startedAt
	})
}

// invoke runs the OCI runtime for a new process of the container and returns the process. It passes
// the stdio to the runtime.
func (c *container) invoke(
	ctx context.Context, capture *reaper.Capture, p *process, io *stdio.Streams, pidFile, verb string, call launchCall,
) (*reaper.Child, error) {
	var socket *stdio.ConsoleSocket
	var console runc.ConsoleSocket // nil without a terminal
	if p.stdio.Terminal {
		var err error
		if socket, err = stdio.ListenConsole(c.runtime.temp("tty", ".sock")); err != nil {
			return nil, err
		}
		defer func() { _ = socket.Close() }() // a socket file in the bundle: removed with it at the latest
		console = socket
	}
	err := c.runtime.run(ctx, verb, func(ctx context.Context, rt *runc.Runc) error {
		return call(ctx, rt, processIO(io.Files()), console)
	})
	if err != nil {
		return nil, err
	}
	pid, err := readPid(pidFile)
	if err != nil {
		return nil, err
	}
	child, err := capture.Claim(pid)
	if err != nil {
		return nil, err
	}
	if socket != nil {
		if err := io.Attach(socket); err != nil {
			return nil, errors.Join(err, kill(child))
		}
	}
	if err := io.HandOver(); err != nil {
		return nil, errors.Join(err, kill(child))
	}
	return child, nil
}

func kill(child *reaper.Child) error {
	if err := child.Signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

func mountRootfs(mounts []*types.Mount, rootfs string) error {
	if err := os.MkdirAll(rootfs, 0o711); err != nil {
		return fmt.Errorf("make rootfs: %w", err)
	}
	list := make([]mount.Mount, 0, len(mounts))
	for _, m := range mounts {
		list = append(list, mount.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	if err := mount.All(list, rootfs); err != nil {
		return fmt.Errorf("mount rootfs: %w", err)
	}
	return nil
}
