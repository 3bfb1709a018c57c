package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/runcopts"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// Checkpoints are made and restored by the OCI runtime, which has CRIU do it.
//
// A container that is created from one has no processes until Start: the OCI runtime restores them running.

// criuWork is where CRIU writes its logs, in the bundle.
const criuWork = "criu"

// haveCRIU is errdefs.ErrFailedPrecondition where CRIU is not installed.
func haveCRIU() error {
	if _, err := exec.LookPath("criu"); err != nil {
		return fmt.Errorf("criu is not installed: %w: %w", err, reason.ProgramMissing)
	}
	return nil
}

// withCRIU adds what to do to an error of the OCI runtime.
func withCRIU(err error) error {
	if errdefs.IsFailedPrecondition(err) {
		return fmt.Errorf("%w: `criu check` tells what CRIU lacks on this host", err)
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
		return nil, fmt.Errorf("checkpoint %s: it is %s: %w", req.Id, st, errdefs.ErrFailedPrecondition)
	}
	if opts.WorkPath == "" {
		opts.WorkPath = p.container.file(criuWork)
	}
	if err := os.MkdirAll(opts.WorkPath, 0o700); err != nil {
		return nil, fmt.Errorf("checkpoint %s: make work directory: %w", req.Id, err)
	}
	if err := p.container.runtime.run(ctx, command{args: append(checkpointArgs(req, opts), req.Id)}); err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", req.Id, withCRIU(err))
	}
	s.tell("checkpointed", "TaskCheckpointed", &events.TaskCheckpointed{ContainerId: req.Id, Checkpoint: req.Path})
	return &types.Empty{}, nil
}

func checkpointArgs(req *task.CheckpointTaskRequest, o *runcopts.CheckpointOptions) []string {
	path := req.Path
	if o.ImagePath != "" {
		path = o.ImagePath
	}
	args := []string{"checkpoint", "--image-path", path}
	for flag, value := range map[string]string{
		"--work-path": o.WorkPath, "--parent-path": o.ParentPath, "--manage-cgroups-mode": o.CgroupsMode,
	} {
		if value != "" {
			args = append(args, flag, value)
		}
	}
	for flag, on := range map[string]bool{
		"--leave-running": !o.Exit, "--tcp-established": o.OpenTcp, "--ext-unix-sk": o.ExternalUnixSockets,
		"--shell-job": o.Terminal, "--file-locks": o.FileLocks,
	} {
		if on {
			args = append(args, flag)
		}
	}
	for _, ns := range o.EmptyNamespaces {
		args = append(args, "--empty-ns", ns)
	}
	return args
}

// checkRestore checks what a container is to be restored from; empty for none.
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
		return fmt.Errorf("restore from %s: it is no directory: %w", image, errdefs.ErrInvalidArgument)
	}
	if err := haveCRIU(); err != nil {
		return fmt.Errorf("restore from %s: %w", image, err)
	}
	return nil
}

// restoreArgs is the OCI runtime's command line for a restore.
func restoreArgs(image string, c *container, opts *runcopts.Options) []string {
	work := opts.CriuWorkPath
	if work == "" {
		work = c.file(criuWork)
	}
	args := []string{
		"restore", "--image-path", image, "--work-path", work,
		"--bundle", c.bundle, "--pid-file", c.file(initPidFile), "--detach",
	}
	if opts.NoPivotRoot {
		args = append(args, "--no-pivot")
	}
	return args
}

// restoreInit restores the container's processes, which run then. After an error there are none, and it may
// be tried again.
func (s *Server) restoreInit(ctx context.Context, p *process) (err error) {
	c := p.container
	if err := os.MkdirAll(c.file(criuWork), 0o700); err != nil {
		return fmt.Errorf("make work directory: %w", err)
	}
	p.mu.Lock()
	io := p.io
	p.mu.Unlock()
	var u undo.Stack
	err = s.launch(ctx, &u, p, io, c.restore)
	if err != nil {
		err = errors.Join(withCRIU(err), u.Run())
		c.removal.renew()
		return fmt.Errorf("restore: %w", err)
	}
	u.Release()
	s.watch(p) // its exit is held until the start is told
	if err := s.noteInit(p, false); err != nil {
		s.log.warnf("restore %s: %v", c.id, err) // it runs
	}
	return nil
}
