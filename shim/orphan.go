package shim

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/shim/cgroup"
)

// A shim stays after its container's end, because the exit has to be readable until the container is
// deleted. It would stay forever if no client can delete the container: the bundle or the socket was
// removed and no client is connected. The shim checks for that once the container has ended, never before.

const (
	// orphanFirst and orphanLast bound the time between two checks, which doubles.
	orphanFirst = time.Second
	orphanLast  = 10 * time.Second
)

// watchOrphan starts the checks whether the shim is abandoned. An init has ended.
func (s *Server) watchOrphan() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orphanWait = orphanFirst
	if !s.leaving() {
		s.orphan.Reset(s.orphanWait)
	}
}

// checkOrphan ends an abandoned shim, or schedules the next check.
func (s *Server) checkOrphan() {
	s.mu.Lock()
	ended, again := s.orphanedLocked()
	if again && !s.leaving() {
		s.orphanWait = min(2*s.orphanWait, orphanLast)
		s.orphan.Reset(s.orphanWait)
	}
	s.mu.Unlock()
	if len(ended) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), undoLimit)
	defer cancel()
	for _, c := range ended {
		s.log.Warnf("container %s has ended and its bundle or the shim's socket is gone: leaving", c.id)
		if err := s.abandon(ctx, c); err != nil {
			s.log.Warnf("clean up after %s: %v", c.id, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pod != nil {
		s.pod.stop()
	}
	s.leave()
}

// orphanedLocked returns the containers of an abandoned shim; if it is not abandoned, again reports
// whether to check again. It is not while a container lives: the end of that container restarts the
// checks.
func (s *Server) orphanedLocked() (ended []*container, again bool) {
	bundles := false
	for _, c := range s.containers {
		if st, _ := c.init.snapshot(); st != stopped {
			return nil, false
		}
		bundles = bundles || !c.bundleRemoved()
		ended = append(ended, c)
	}
	if len(ended) == 0 {
		return nil, false
	}
	if reachable := s.conns > 0 || s.socket == "" || exists(s.socket); bundles && reachable || s.pod != nil && reachable {
		return nil, true
	}
	return ended, false
}

// bundleRemoved reports whether the container's bundle was removed. What is mounted in it may be
// left.
func (c *container) bundleRemoved() bool { return !exists(c.file("config.json")) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, os.ErrNotExist)
}

// abandon gives up an ended container. If its bundle exists it is kept: its manager finds the exit
// there, and cleans up as after a killed shim.
func (s *Server) abandon(ctx context.Context, c *container) error {
	if !c.bundleRemoved() {
		for _, p := range append(c.execList(), c.init) {
			p.mu.Lock()
			io := p.io
			p.io = nil
			p.mu.Unlock()
			if io != nil {
				io.Drain()
				if err := io.Close(); err != nil {
					return err
				}
			}
		}
		return c.unlock()
	}
	_, err := s.Delete(ctx, &task.DeleteRequest{Id: c.id})
	// The spec that names the cgroups is gone, and perhaps the OCI runtime's state.
	c.mu.Lock()
	dirs := c.cgroup.Dirs()
	c.mu.Unlock()
	err = errors.Join(err, cgroup.Remove(ctx, dirs))
	_ = os.Remove(c.file("rootfs")) // which an rm left because something was mounted there
	_ = os.Remove(c.bundle)
	return err
}
