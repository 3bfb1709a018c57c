package shim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/containerd/errdefs"
	runc "github.com/containerd/go-runc"

	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/runcopts"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// Checkpoints are made and restored by the OCI runtime, which has CRIU do it.
//
// A container created from a checkpoint has no processes until Start: the OCI runtime restores them
// running.

// criuWork is the directory of CRIU's logs, in the bundle.
const criuWork = "criu"

// haveCRIU returns errdefs.ErrFailedPrecondition if CRIU is not installed.
func haveCRIU() error {
	if _, err := exec.LookPath("criu"); err != nil {
		return fmt.Errorf("criu is not installed: %w: %w", err, reason.ProgramMissing)
	}
	return nil
}

// withCRIU adds what to do to an error of the OCI runtime.
func withCRIU(err error) error {
	if errdefs.IsFailedPrecondition(err) {
		return fmt.Errorf("%w: `criu check` reports what is missing on this host", err)
	}
	return err
}

// Checkpoint writes an image of the container's processes. It needs CRIU on the host.
func (s *Server) Checkpoint(ctx context.Context, req *task.CheckpointTaskRequest) (*types.Empty, error) {
	p, err := s.process(req.Id, "")
	if err != nil {
		return nil, err
	}
	opts := &runcopts.CheckpointOptions{}
	if req.Options != nil && len(req.Options.Value) > 0 {
		if err := opts.Unmarshal(req.Options.Value); err != nil {
			return nil, fmt.Errorf("checkpoint options: %w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	if err := haveCRIU(); err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", req.Id, err)
	}
	release, err := p.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if st, _ := p.snapshot(); st != running && st != paused {
		return nil, fmt.Errorf("checkpoint %s: task is %s: %w", req.Id, st, errdefs.ErrFailedPrecondition)
	}
	if opts.WorkPath == "" {
		opts.WorkPath = p.container.file(criuWork)
	}
	if err := os.MkdirAll(opts.WorkPath, 0o700); err != nil {
		return nil, fmt.Errorf("checkpoint %s: make work directory: %w", req.Id, err)
	}
	err = p.container.runtime.run(ctx, "checkpoint", func(ctx context.Context, rt *runc.Runc) error {
		o, actions := checkpointOpts(req, opts)
		return rt.Checkpoint(ctx, req.Id, o, actions...)
	})
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", req.Id, withCRIU(err))
	}
	s.publish("checkpointed", "TaskCheckpointed", &events.TaskCheckpointed{ContainerId: req.Id, Checkpoint: req.Path})
	return &types.Empty{}, nil
}

// checkpointOpts returns what go-runc needs for a checkpoint.
func checkpointOpts(req *task.CheckpointTaskRequest, o *runcopts.CheckpointOptions) (*runc.CheckpointOpts, []runc.CheckpointAction) {
	opts := &runc.CheckpointOpts{
		ImagePath: cmp.Or(o.ImagePath, req.Path), WorkDir: o.WorkPath, ParentPath: o.ParentPath,
		AllowOpenTCP: o.OpenTcp, AllowExternalUnixSockets: o.ExternalUnixSockets, AllowTerminal: o.Terminal,
		FileLocks: o.FileLocks, Cgroups: runc.CgroupMode(o.CgroupsMode), EmptyNamespaces: o.EmptyNamespaces,
	}
	if o.Exit {
		return opts, nil
	}
	return opts, []runc.CheckpointAction{runc.LeaveRunning}
}

// checkRestore checks the image that a container is to be restored from; empty for none.
func checkRestore(image string) error {
	if image == "" {
		return nil
	}
	if !filepath.IsAbs(image) {
		return fmt.Errorf("restore from %q: want an absolute path: %w", image, errdefs.ErrInvalidArgument)
	}
	info, err := os.Stat(image)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("restore from %s: %w: %w", image, err, errdefs.ErrNotFound)
	case err != nil:
		return fmt.Errorf("restore: %w", err)
	case !info.IsDir():
		return fmt.Errorf("restore from %s: not a directory: %w", image, errdefs.ErrInvalidArgument)
	}
	if err := haveCRIU(); err != nil {
		return fmt.Errorf("restore from %s: %w", image, err)
	}
	return nil
}

// restoreOpts returns what go-runc needs to restore the container.
func restoreOpts(image string, c *container, opts *runcopts.Options) *runc.RestoreOpts {
	return &runc.RestoreOpts{
		CheckpointOpts: runc.CheckpointOpts{ImagePath: image, WorkDir: cmp.Or(opts.CriuWorkPath, c.file(criuWork))},
		PidFile:        c.file(initPidFile), Detach: true, NoPivot: opts.NoPivotRoot,
	}
}

// restoreInit restores the container's processes and leaves them running. After an error there are none,
// and the restore may be tried again.
func (s *Server) restoreInit(ctx context.Context, p *process) (err error) {
	c := p.container
	if err := os.MkdirAll(c.file(criuWork), 0o700); err != nil {
		return fmt.Errorf("make work directory: %w", err)
	}
	p.mu.Lock()
	io := p.io
	p.mu.Unlock()
	var u undo.Stack
	err = s.launch(ctx, &u, p, io, "restore", func(ctx context.Context, rt *runc.Runc, io runc.IO, console runc.ConsoleSocket) error {
		opts := *c.restore
		opts.IO, opts.ConsoleSocket = io, console
		_, err := rt.Restore(ctx, c.id, c.bundle, &opts)
		return err
	})
	if err != nil {
		err = errors.Join(withCRIU(err), u.Run())
		c.removal.renew()
		return fmt.Errorf("restore: %w", err)
	}
	u.Release()
	s.watch(p) // its exit is held until the start is published
	if err := s.noteInit(p, false); err != nil {
		s.log.Warnf("restore %s: %v", c.id, err) // it runs
	}
	return nil
}
