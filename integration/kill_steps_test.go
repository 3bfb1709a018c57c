package integration

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// steps watches directories and all new directories in them, and calls act at the nth change: a name is created,
// removed or modified. The creation and removal of a container consist of such changes, so increasing n covers all of
// their steps.
type steps struct {
	f       *os.File
	stopped sync.WaitGroup

	mu    sync.Mutex
	names map[int32]string
	seen  []string
}

const changes = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_CLOSE_WRITE

// watchSteps starts a watch; nth counts from 1, and 0 never acts.
func watchSteps(t *testing.T, nth int, act func(), dirs ...string) *steps {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	must(t, err)
	s := &steps{f: os.NewFile(uintptr(fd), "inotify"), names: make(map[int32]string)}
	for _, dir := range dirs {
		must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				return ignoreGone(err)
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

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// add watches a directory; a removed one is ignored.
func (s *steps) add(dir string) {
	raw, err := s.f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		wd, err := unix.InotifyAddWatch(int(fd), dir, changes|unix.IN_ONLYDIR|unix.IN_DONT_FOLLOW)
		if err == nil {
			s.mu.Lock()
			s.names[int32(wd)] = dir
			s.mu.Unlock()
		}
	})
}

// take processes a buffer of events.
func (s *steps) take(buf []byte, nth int, act func()) {
	for len(buf) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(buf))
		mask := binary.NativeEndian.Uint32(buf[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buf[12:]))
		name := strings.TrimRight(string(buf[unix.SizeofInotifyEvent:size]), "\x00")
		buf = buf[size:]
		if mask&changes == 0 {
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

// stop ends the watch and returns the observed steps.
func (s *steps) stop(t *testing.T) []string {
	t.Helper()
	must(t, s.f.Close())
	s.stopped.Wait()
	return s.seen
}

// watched lists the directories in which the creation and removal of containers are visible.
func (d *Daemon) watched() []string {
	return []string{
		filepath.Join(d.State, "io.containerd.runtime.v2.task"), filepath.Join(d.State, "s"), filepath.Join(d.State, "runc"),
		filepath.Join(d.Root, "io.containerd.runtime.v2.task"), filepath.Join(d.Root, "logs"),
		filepath.Join(d.Root, "snapshots", "overlayfs"), d.Root,
	}
}

// stepped runs a command of the CLI, kills the daemon at its nth step, and starts it again. It reports whether the
// command had that many steps, and whether it succeeded.
func (d *Daemon) stepped(n int, args ...string) (reached, succeeded bool) {
	d.t.Helper()
	killed := make(chan struct{})
	pid := d.cmd.Process.Pid
	s := watchSteps(d.t, n, func() {
		_ = unix.Kill(pid, unix.SIGKILL) // this test's own process, which is not reaped yet
		close(killed)
	}, d.watched()...)
	cmd := d.Command(args...)
	must(d.t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var err error
	select {
	case <-killed:
		<-d.exited
		d.Begin()
		err = <-ended
		reached = true
	case err = <-ended:
	}
	seen := s.stop(d.t)
	select {
	case <-killed:
		if !reached { // the command ended before the daemon
			<-d.exited
			d.Begin()
			reached = true
		}
	default:
	}
	if reached {
		d.t.Logf("%s: killed at %s; the command: %v", args[0], seen[n-1], err)
	}
	return reached, err == nil
}

func TestDaemonKilled_AtEveryStepOfCreate(t *testing.T) {
	d := Start(t)
	d.Busybox()
	for n, more := 1, true; more; n++ {
		id := fmt.Sprintf("c%d", n)
		var ok bool
		more, ok = d.stepped(n, "run", "-d", "--name", id, "busybox", "sleep", "1000")
		d.Eventually("shims equal live tasks", d.consistent)
		all := d.all()
		if _, there := all[id]; ok && !there || len(all) > 1 {
			t.Fatalf("step %d: run succeeded: %t; containers: %v", n, ok, all)
		}
		for id := range all {
			d.Cleat("rm", "--force", id)
		}
		d.Eventually("nothing is left", d.leaks)
	}
}

func TestDaemonKilled_AtEveryStepOfDelete(t *testing.T) {
	d := Start(t)
	d.Busybox()
	for n, more := 1, true; more; n++ {
		id := fmt.Sprintf("c%d", n)
		d.Cleat("run", "-d", "--name", id, "busybox", "sleep", "1000")
		more, _ = d.stepped(n, "rm", "--force", id)
		d.Eventually("shims equal live tasks", d.consistent)
		if _, stderr, code := d.Try("rm", "--force", id); code != 0 && !strings.Contains(stderr, "not found") {
			t.Fatalf("step %d: second removal: %s", n, stderr)
		}
		if all := d.all(); len(all) != 0 {
			t.Fatalf("step %d: containers: %v", n, all)
		}
		d.Eventually("nothing is left", d.leaks)
	}
}
