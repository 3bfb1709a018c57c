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
)

// oomWatch hears from the kernel that a container's memory has run out: through an eventfd on
// cgroup v1, inotify on v2. It is a hint to look at the counters; they are looked at once more
// when the init has exited, so that no kill goes untold.
type oomWatch struct {
	file  *os.File
	early bool // the hint comes before the kill, as on v1
	done  chan struct{}
	wg    sync.WaitGroup
}

// killLimit is how long a kill is looked for after an early hint. Where the container has the kernel's
// killing switched off, none comes.
const killLimit = time.Second

// watchOOM starts watching. A host that cannot is only warned about.
func (s *Server) watchOOM(c *container, cg cgroup) {
	w, err := openOOM(cg)
	if err != nil {
		s.log.warnf("watch memory of %s: %v", c.id, err)
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
			if !s.tellOOM(c) && w.early {
				w.await(func() bool { return s.tellOOM(c) })
			}
		}
	})
}

// await asks until told is true, in steps that grow, for killLimit at most.
func (w *oomWatch) await(told func() bool) {
	for step := time.Millisecond; step < killLimit; step *= 2 {
		timer := time.NewTimer(step)
		select {
		case <-timer.C:
		case <-w.done:
			timer.Stop()
			return
		}
		if told() {
			return
		}
	}
}

// tellOOM announces kills that have not been announced, once the container itself has been, and
// says whether there were any.
func (s *Server) tellOOM(c *container) bool {
	if st, _ := c.init.snapshot(); st == creating {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	kills, err := c.cgroup.oomKills()
	if err != nil || kills <= c.ooms {
		return false
	}
	c.ooms = kills
	s.tell("oom", "TaskOOM", &events.TaskOOM{ContainerId: c.id})
	return true
}

// oomKilled says whether a kill was ever announced.
func (c *container) oomKilled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ooms > 0
}

// lastOOM announces what is left to announce, stops watching, and says whether there ever was a kill.
func (s *Server) lastOOM(c *container) bool {
	s.tellOOM(c)
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

func openOOM(cg cgroup) (*oomWatch, error) {
	var fd int
	var err error
	switch {
	case cg.unified != "":
		fd, err = inotifyOOM(filepath.Join(cg.unified, "memory.events"))
	case cg.v1["memory"] != "":
		fd, err = eventfdOOM(cg.v1["memory"])
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &oomWatch{file: os.NewFile(uintptr(fd), "oom"), early: cg.unified == "", done: make(chan struct{})}, nil
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
