package shim

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/reaper"
)

// removal makes the OCI runtime's delete succeed at most once, for whichever caller comes first:
// the exit, in the background, or Delete.
type removal struct {
	turn chan struct{} // holds one token while a caller works
	done bool          // guarded by turn
}

func newRemoval() removal { return removal{turn: make(chan struct{}, 1)} }

// skip makes the removal count as done.
func (r *removal) skip() {
	r.turn <- struct{}{}
	r.done = true
	<-r.turn
}

// renew makes the removal necessary again: a container is to be created again.
func (r *removal) renew() {
	r.turn <- struct{}{}
	r.done = false
	<-r.turn
}

// removeFromRuntime has the OCI runtime delete the container and kill what remains of it.
// Idempotent.
func (c *container) removeFromRuntime(ctx context.Context) error {
	select {
	case c.removal.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait for removal of %s: %w", c.id, ctx.Err())
	}
	defer func() { <-c.removal.turn }()
	if c.removal.done {
		return nil
	}
	if err := c.runtime.forget(ctx, c.id); err != nil {
		return err
	}
	c.removal.done = true
	return nil
}

// removeLater does the runtime's part of Delete as soon as the container has ended.
//
//nolint:contextcheck // it runs after the request that noticed the exit
func (s *Server) removeLater(c *container) {
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), undoLimit)
		defer cancel()
		if err := c.removeFromRuntime(ctx); err != nil {
			s.log.Warnf("remove container %s: %v", c.id, err)
		}
		s.countCall()
	})
}

// Delete frees what a process holds. It kills a container that was only created. After a failure it
// can be called again.
func (s *Server) Delete(ctx context.Context, req *task.DeleteRequest) (*task.DeleteResponse, error) {
	p, err := s.process(req.Id, req.ExecId)
	if err != nil {
		return nil, err
	}
	release, err := p.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if p.execID != "" {
		return s.deleteExec(p)
	}
	return s.deleteInit(ctx, p)
}

func (s *Server) deleteExec(p *process) (*task.DeleteResponse, error) {
	exit, pid, err := s.finish(p)
	if err != nil {
		return nil, err
	}
	p.container.removeExec(p)
	return deleteResponse(pid, exit), nil
}

func (s *Server) deleteInit(ctx context.Context, p *process) (*task.DeleteResponse, error) {
	c := p.container
	st, child := p.snapshot()
	if st == deleted { // by a faster caller
		return nil, fmt.Errorf("delete container %s: already deleted: %w", c.id, errdefs.ErrNotFound)
	}
	if st != created && st != stopped {
		return nil, fmt.Errorf("delete container %s: task is %s: %w", c.id, st, errdefs.ErrFailedPrecondition)
	}
	if child != nil { // else it has not been restored
		if err := c.removeFromRuntime(ctx); err != nil {
			return nil, fmt.Errorf("delete container %s: %w", c.id, err)
		}
		if _, err := p.wait(ctx); err != nil { // it was only created, and has just been killed
			return nil, err
		}
	}
	for _, e := range c.execList() {
		if _, err := s.deleteExec(e); err != nil {
			s.log.Warnf("delete %s with its container: %v", e.id(), err)
		}
	}
	if c.mounted {
		// Lazily: the kernel dismantles a dead init's mount namespace asynchronously, and until
		// then the mount counts as busy.
		if err := mount.UnmountAll(c.file("rootfs"), unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil {
			return nil, fmt.Errorf("delete container %s: %w", c.id, err)
		}
	}
	exit, pid, err := s.finish(p)
	if err != nil {
		return nil, err
	}
	s.publish("delete", "TaskDelete", &events.TaskDelete{
		ContainerId: c.id, Pid: uint32(pid), // an init has no exec id
		ExitStatus: uint32(exit.Status), ExitedAt: types.FromTime(exit.At),
	})
	s.remove(c)
	if err := c.unlock(); err != nil {
		s.log.Warnf("delete container %s: %v", c.id, err)
	}
	return deleteResponse(pid, exit), nil
}

// finish takes the last step and closes the stdio.
func (s *Server) finish(p *process) (reaper.Exit, int, error) {
	p.mu.Lock()
	io := p.io
	if _, err := p.stepLocked(evDelete); err != nil {
		p.mu.Unlock()
		return reaper.Exit{}, 0, fmt.Errorf("delete %s: %w", p.id(), err)
	}
	exit, pid := p.exit, p.pid
	p.io = nil
	close(p.gone)
	p.mu.Unlock()
	if io != nil {
		io.Drain()
		if err := io.Close(); err != nil {
			s.log.Warnf("close stdio of %s: %v", p.id(), err)
		}
	}
	return exit, pid, nil
}

func deleteResponse(pid int, exit reaper.Exit) *task.DeleteResponse {
	at := exit.At
	if at.IsZero() { // never started
		at = time.Now()
	}
	return &task.DeleteResponse{Pid: uint32(pid), ExitStatus: uint32(exit.Status), ExitedAt: types.FromTime(at)}
}
