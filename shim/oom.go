package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/shim/cgroup"
)

// oomWatch is notified by the kernel that a container's memory has run out: through an eventfd on
// cgroup v1, inotify on v2. This is a hint to read the counters; they are read once more when the
// init has exited, so that no kill goes unreported.
type oomWatch struct {
	file  *os.File
	early bool // the hint precedes the kill, as on v1
	done  chan struct{}
	wg    sync.WaitGroup
}

// killLimit is how long to wait for a kill after an early hint. If OOM kills are disabled for the
// container, none happens.
const killLimit = time.Second

// watchOOM starts watching. A host that does not support it only causes a warning.
func (s *Server) watchOOM(c *container, cg cgroup.Group) {
	w, err := openOOM(cg)
	if err != nil {
		s.log.Warnf("watch memory of %s: %v", c.id, err)
	}
	if w == nil {
		return
	}
	c.mu.Lock()
	c.oom = w
	c.mu.Unlock()
	w.wg.Go(func() {
		buf := make([]byte, 512)
		for {
			if _, err := w.file.Read(buf); err != nil {
				return
			}
			if !s.publishOOM(c) && w.early {
				w.await(func() bool { return s.publishOOM(c) })
			}
		}
	})
}

// await polls until done returns true, with growing intervals, for killLimit at most.
func (w *oomWatch) await(done func() bool) {
	for step := time.Millisecond; step < killLimit; step *= 2 {
		timer := time.NewTimer(step)
		select {
		case <-timer.C:
		case <-w.done:
			timer.Stop()
			return
		}
		if done() {
			return
		}
	}
}

// publishOOM publishes kills that have not been published, once the container itself has been, and
// reports whether there were any.
func (s *Server) publishOOM(c *container) bool {
	if st, _ := c.init.snapshot(); st == creating {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	kills, err := c.cgroup.OOMKills()
	if err != nil || kills <= c.ooms {
		return false
	}
	c.ooms = kills
	s.publish("oom", "TaskOOM", &events.TaskOOM{ContainerId: c.id})
	return true
}

// oomKilled reports whether a kill was ever published.
func (c *container) oomKilled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ooms > 0
}

// lastOOM publishes the remaining kills, stops watching, and reports whether there ever was a kill.
func (s *Server) lastOOM(c *container) bool {
	s.publishOOM(c)
	c.mu.Lock()
	w := c.oom
	c.oom = nil
	c.mu.Unlock()
	if w != nil {
		w.close()
	}
	return c.oomKilled()
}

func (w *oomWatch) close() {
	close(w.done)
	_ = w.file.Close() // ends the reader
	w.wg.Wait()
}

func openOOM(cg cgroup.Group) (*oomWatch, error) {
	var fd int
	var err error
	switch {
	case cg.Unified != "":
		fd, err = inotifyOOM(filepath.Join(cg.Unified, "memory.events"))
	case cg.V1["memory"] != "":
		fd, err = eventfdOOM(cg.V1["memory"])
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &oomWatch{file: os.NewFile(uintptr(fd), "oom"), early: cg.Unified == "", done: make(chan struct{})}, nil
}

func inotifyOOM(path string) (int, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("watch %s: %w", path, err)
	}
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY); err != nil {
		return -1, errors.Join(fmt.Errorf("watch %s: %w", path, err), unix.Close(fd))
	}
	return fd, nil
}

func eventfdOOM(dir string) (_ int, err error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("watch %s: %w", dir, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, unix.Close(fd))
		}
	}()
	control, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err != nil {
		return -1, fmt.Errorf("watch memory: %w", err)
	}
	defer func() { err = errors.Join(err, control.Close()) }()
	line := strconv.Itoa(fd) + " " + strconv.Itoa(int(control.Fd()))
	if err := os.WriteFile(filepath.Join(dir, "cgroup.event_control"), []byte(line), 0); err != nil {
		return -1, fmt.Errorf("watch memory: %w", err)
	}
	return fd, nil
}
