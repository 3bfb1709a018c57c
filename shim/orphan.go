package shim

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/cleatproject/cleat/proto/task"
)

// A shim stays after its container's end, because the exit has to be readable until the container is
// deleted. It would stay forever if no client can delete it: its bundle was removed under it, or its socket
// was, and no client is connected. That is looked for from the end of the container on, never before.

const (
	// orphanFirst and orphanLast bound the time between two looks, which doubles.
	orphanFirst = time.Second
	orphanLast  = 10 * time.Second
)

// watchOrphan begins to look whether the shim is abandoned. An init has ended.
func (s *Server) watchOrphan() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orphanWait = orphanFirst
	if !s.leaving() {
		s.orphan.Reset(s.orphanWait)
	}
}

// lookOrphan ends a shim that is abandoned, or has it looked for again.
func (s *Server) lookOrphan() {
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
		s.log.warnf("container %s has ended and its bundle or the shim's socket is gone: leaving", c.id)
		if err := s.abandon(ctx, c); err != nil {
			s.log.warnf("clean up after %s: %v", c.id, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pod != nil {
		s.pod.stop()
	}
	s.leave()
}

// orphanedLocked returns the containers of a shim that is abandoned; if it is not, it reports whether
// that is to be looked at again. It is not while a container lives: the end of that begins anew.
func (s *Server) orphanedLocked() (ended []*container, again bool) {
	bundles := false
	for _, c := range s.containers {
		if st, _ := c.init.snapshot(); st != stopped {
			return nil, false
		}
		bundles = bundles || !c.wiped()
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

// wiped reports whether the container's bundle was removed. What is mounted in it may be left.
func (c *container) wiped() bool { return !exists(c.file("config.json")) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, os.ErrNotExist)
}

// abandon gives an ended container up. One that has its bundle keeps it: its manager finds the exit
// there, and cleans up as after a shim that was killed.
func (s *Server) abandon(ctx context.Context, c *container) error {
	if !c.wiped() {
		for _, p := range append(c.execList(), c.init) {
			p.mu.Lock()
			io := p.io
			p.io = nil
			p.mu.Unlock()
			if io != nil {
				io.drain()
				if err := io.close(); err != nil {
					return err
				}
			}
		}
		return c.unlock()
	}
	_, err := s.Delete(ctx, &task.DeleteRequest{Id: c.id})
	// The spec that names the cgroups is gone, and so may be what the OCI runtime knew.
	c.mu.Lock()
	dirs := c.cgroup.dirs()
	c.mu.Unlock()
	err = errors.Join(err, removeCgroupDirs(ctx, dirs))
	_ = os.Remove(c.file("rootfs")) // which an rm left because something was mounted there
	_ = os.Remove(c.bundle)
	return err
}
