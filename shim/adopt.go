package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	runc "github.com/containerd/go-runc"

	"github.com/cleatproject/cleat/internal/exitrecord"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/reaper"
	"github.com/cleatproject/cleat/shim/cgroup"
	"github.com/cleatproject/cleat/shim/stdio"
)

const (
	// adoptLimit bounds an adoption; no request is served during it.
	adoptLimit = 10 * time.Second
	// lockRetry is the interval between attempts to lock the bundle: the previous shim may be
	// dying.
	lockRetry = 5 * time.Millisecond
	lockLimit = 2 * time.Second
)

// adopt takes over the container of a dead shim; serve calls it before it accepts requests. A live shim is not
// replaced unless the daemon reports it as unreachable: then it is ended. On an error the container is
// unchanged and the shim holds none.
//
// The init is identified by its pid and start time and followed by its pidfd (reaper.Adopt). What
// the dead shim had open is opened again if it has a name: FIFOs and the pipes to logs. Exec'd
// processes keep running, but their ids are lost.
func (s *Server) adopt(bundle, id string, unreachable bool) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), adoptLimit)
	defer cancel()
	h, err := readHandle(bundle)
	switch {
	case err != nil:
		return err
	case h.ID != id:
		return fmt.Errorf("bundle %s belongs to %s: %w", bundle, h.ID, errdefs.ErrInvalidArgument)
	case h.Pid <= 0 || h.StartTime == 0:
		return fmt.Errorf("shim recorded no live init: %w", errdefs.ErrFailedPrecondition)
	}
	var u undo.Stack
	defer func() { err = errors.Join(err, u.Run()) }()
	c := s.restore(bundle, h)
	err = lockPatiently(ctx, c)
	if unreachable && errdefs.IsUnavailable(err) {
		err = errors.Join(evict(ctx, bundle, id), lockPatiently(ctx, c))
	}
	if err != nil {
		return err
	}
	u.Push("unlock bundle", c.unlock)
	if _, err := exitrecord.Read(bundle); !errors.Is(err, os.ErrNotExist) {
		return errors.Join(fmt.Errorf("exit is recorded: %w", errdefs.ErrFailedPrecondition), err)
	}
	child, err := s.reaper.Adopt(h.Pid, h.StartTime)
	if err != nil {
		return err
	}
	if err := s.add(c); err != nil {
		return err
	}
	u.Release()
	s.resume(ctx, c, child)
	return nil
}

// restore creates the container that a handle describes.
func (s *Server) restore(bundle string, h handle) *container {
	c := &container{
		id: h.ID, bundle: bundle, handle: h,
		mounted: h.Mounted, ioUID: h.IOUID, ioGID: h.IOGID,
		execs: make(map[string]*process), removal: newRemoval(),
	}
	c.runtime = &ociRuntime{
		monitor: s.monitor, binary: h.Binary, root: h.Root, systemdCgroup: h.SystemdCgroup, bundle: bundle,
	}
	c.init = newProcess(c, "", stdio.Paths{Stdin: h.Stdin, Stdout: h.Stdout, Stderr: h.Stderr, Terminal: h.Terminal, Owner: h.StdioOwner}, created)
	return c
}

// lockPatiently waits until the previous shim has released the bundle.
func lockPatiently(ctx context.Context, c *container) error {
	ctx, cancel := context.WithTimeout(ctx, lockLimit)
	defer cancel()
	tick := time.NewTicker(lockRetry)
	defer tick.Stop()
	for {
		err := c.lock()
		if !errdefs.IsUnavailable(err) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// resume continues with the container. If its init has ended already, its exit follows.
func (s *Server) resume(ctx context.Context, c *container, child *reaper.Child) {
	p := c.init
	if group := c.handle.ShimCgroup; group != "" {
		if err := cgroup.Join(group); err != nil {
			s.log.Warnf("join cgroup %s: %v", group, err)
		}
	}
	io := s.reopenStdio(c)
	s.setCgroup(c, c.handle.Cgroup)
	st, missed := s.initState(ctx, c)
	if missed {
		at := time.Now()
		if err := c.note(func(h *handle) { h.Started, h.StartedAt = true, at }); err != nil {
			s.log.Warnf("adopt %s: %v", c.id, err)
		}
	}
	p.mu.Lock()
	p.pid, p.child, p.io = child.Pid(), child, io
	p.state, p.startedAt = st, c.handle.StartedAt
	if missed {
		s.publishStarted(p)
	}
	p.mu.Unlock()
	s.publishOOM(c) // may repeat what the previous shim published
	s.watch(p)
	s.log.Infof("adopted container %s, process %d, %s", c.id, child.Pid(), st)
}

// initState returns the state of the init. missed reports that it was started and the previous shim
// did not have time to record and publish the start.
func (s *Server) initState(ctx context.Context, c *container) (st state, missed bool) {
	if !c.handle.Started {
		status, err := c.runtimeStatus(ctx)
		if err != nil {
			s.log.Warnf("adopt %s: %v", c.id, err)
		}
		if status != "running" && status != "paused" {
			return created, false
		}
		missed = true
	}
	if c.cgroup.Frozen() {
		return paused, missed
	}
	return running, missed
}

// runtimeStatus returns the container's status as the OCI runtime reports it.
func (c *container) runtimeStatus(ctx context.Context) (status string, err error) {
	err = c.runtime.read(ctx, "state", func(ctx context.Context, rt *runc.Runc) error {
		state, err := rt.State(ctx, c.id)
		if err == nil {
			status = state.Status
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read state: %w", err)
	}
	return status, nil
}

// reopenStdio opens what has to stay open or be moved while the init lives. Terminals died with the shim that held
// their masters; loggers own their pipes.
func (s *Server) reopenStdio(c *container) *stdio.Streams {
	paths := c.init.stdio
	if paths.Terminal {
		s.log.Warnf("adopt %s: its terminal is lost", c.id)
		return &stdio.Streams{}
	}
	if c.handle.StdinClosed {
		paths.Stdin = ""
	}
	env := s.stdioEnv(c, nil)
	env.Bundle = c.bundle
	io, err := stdio.Reopen(env, paths)
	if err != nil {
		s.log.Warnf("adopt %s: %v", c.id, err)
	}
	return io
}
