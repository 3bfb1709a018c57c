package harness

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Steps watches directories and all new directories in them, and calls act at the nth change: a name is created,
// removed or modified. The creation and removal of a container consist of such changes, so increasing n covers all of
// their steps.
type Steps struct {
	f       *os.File
	mask    uint32
	stopped sync.WaitGroup

	mu    sync.Mutex
	names map[int32]string
	seen  []string
}

const changes = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_CLOSE_WRITE

// WatchSteps starts a watch; nth counts from 1, and 0 never acts.
func WatchSteps(t *testing.T, nth int, act func(), dirs ...string) *Steps {
	t.Helper()
	return watch(t, changes, nth, act, dirs...)
}

func watch(t *testing.T, mask uint32, nth int, act func(), dirs ...string) *Steps {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	Must(t, err)
	s := &Steps{mask: mask, f: os.NewFile(uintptr(fd), "inotify"), names: make(map[int32]string)}
	for _, dir := range dirs {
		Must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				return IgnoreGone(err)
			}
			s.add(path)
			return nil
		}))
	}
	s.stopped.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := s.f.Read(buf)
			if err != nil {
				return
			}
			s.take(buf[:n], nth, act)
		}
	})
	return s
}

// add watches a directory; a removed one is ignored.
func (s *Steps) add(dir string) {
	raw, err := s.f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		wd, err := unix.InotifyAddWatch(int(fd), dir, s.mask|unix.IN_ONLYDIR|unix.IN_DONT_FOLLOW)
		if err == nil {
			s.mu.Lock()
			s.names[int32(wd)] = dir
			s.mu.Unlock()
		}
	})
}

// take processes a buffer of events.
func (s *Steps) take(buf []byte, nth int, act func()) {
	for len(buf) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(buf))
		mask := binary.NativeEndian.Uint32(buf[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buf[12:]))
		name := strings.TrimRight(string(buf[unix.SizeofInotifyEvent:size]), "\x00")
		buf = buf[size:]
		if mask&s.mask == 0 {
			continue
		}
		s.mu.Lock()
		path := filepath.Join(s.names[wd], name)
		s.seen = append(s.seen, fmt.Sprintf("%#x %s", mask, path))
		now := len(s.seen)
		s.mu.Unlock()
		if now == nth {
			act()
		}
		if mask&unix.IN_ISDIR != 0 && mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0 {
			s.add(path)
		}
	}
}

// Stop ends the watch and returns the observed steps.
func (s *Steps) Stop(t *testing.T) []string {
	t.Helper()
	Must(t, s.f.Close())
	s.stopped.Wait()
	return s.seen
}

// Watched lists the directories in which the creation and removal of containers are visible.
func (d *Daemon) Watched() []string {
	return []string{
		filepath.Join(d.State, "io.containerd.runtime.v2.task"), filepath.Join(d.State, "s"), filepath.Join(d.State, "runc"),
		filepath.Join(d.Root, "io.containerd.runtime.v2.task"), filepath.Join(d.Root, "logs"),
		filepath.Join(d.Root, "snapshots", "overlayfs"), d.Root,
	}
}
