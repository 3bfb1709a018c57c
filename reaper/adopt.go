package reaper

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnsupported is returned by Adopt on kernels older than 6.15: they report the exit of a process
// to its parent only.
var ErrUnsupported = errors.New("kernel older than 6.15 reports exits to parents only")

const (
	// exitLimit is how long the status of an adopted process is polled after its end.
	exitLimit = 5 * time.Second
	// exitRetry is the interval of the polls.
	exitRetry = 5 * time.Millisecond
	// unknownStatus is reported if it remains unknown.
	unknownStatus = 255
)

// handle identifies a process that is not a child: by a pidfd, which waits in Go's poller.
type handle struct {
	file *os.File
	conn syscall.RawConn
}

// Adopt returns the Child of a process that is another's child, so that its exit is reported like that
// of any other. startTime is the result of StartTime from when it surely was the intended process: if
// the pid belongs to another process by now, or to none, it returns os.ErrProcessDone. A process that has ended and
// is not collected by its parent yet is adopted, and its exit reported.
//
// The status comes from the kernel, by the pidfd, once the parent has collected the process; before
// that, from /proc, if the caller has CAP_SYS_PTRACE, without which /proc does not show it. If neither
// returns it within 5 s of the end, it is 255. Exit.At is when the exit was seen. The Reaper owns the
// goroutine that waits; Close ends it. Linux 6.15 or later, else ErrUnsupported.
func (r *Reaper) Adopt(pid int, startTime uint64) (*Child, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, fmt.Errorf("adopt process %d: %w", pid, err)
	}
	if release := unix.ByteSliceToString(uts.Release[:]); !atLeast(release, 6, 15) {
		return nil, fmt.Errorf("adopt process %d: kernel %s: %w", pid, release, ErrUnsupported)
	}
	h, err := openHandle(pid, startTime)
	if err != nil {
		return nil, fmt.Errorf("adopt process %d: %w", pid, err)
	}
	c := &Child{pid: pid, reaper: r, handle: h, done: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errors.Join(fmt.Errorf("adopt process %d: %w", pid, ErrClosed), h.file.Close())
	}
	r.adopted[c] = struct{}{}
	r.wg.Go(func() { r.await(c) })
	return c, nil
}

// openHandle opens the process of that pid and start time.
func openHandle(pid int, startTime uint64) (*handle, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK) // close-on-exec by itself
	if errors.Is(err, unix.ESRCH) {
		return nil, os.ErrProcessDone
	}
	if err != nil {
		return nil, fmt.Errorf("open process: %w", err)
	}
	h := &handle{file: os.NewFile(uintptr(fd), "pidfd")}
	if h.conn, err = h.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("open process: %w", err), h.file.Close())
	}
	if err := h.file.SetReadDeadline(time.Time{}); err != nil { // the poller did not accept it
		return nil, errors.Join(fmt.Errorf("wait for process: %w", err), h.file.Close())
	}
	// Checked after opening: a pid read before could be reused in between.
	if now, err := StartTime(pid); err != nil || now != startTime || h.signal(0) != nil {
		return nil, errors.Join(os.ErrProcessDone, h.file.Close())
	}
	return h, nil
}

// await waits for the end of an adopted process and reports it.
func (r *Reaper) await(c *Child) {
	status, ok := c.handle.wait(c.pid, r.stop)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.adopted, c)
	_ = c.handle.file.Close() // a pidfd; Close may have closed it
	if !ok {
		return // the reaper was closed
	}
	c.exit = Exit{Pid: c.pid, Status: status, At: time.Now()}
	close(c.done)
}

// wait waits for the end and returns the status; false if stop was closed first.
func (h *handle) wait(pid int, stop <-chan struct{}) (int, bool) {
	if err := h.conn.Read(ended); err != nil {
		return 0, false
	}
	useProc := mayTrace()
	limit := time.NewTimer(exitLimit)
	defer limit.Stop()
	tick := time.NewTicker(exitRetry)
	defer tick.Stop()
	for {
		if ws, ok := h.collected(); ok {
			return statusOf(ws), true
		}
		if ws, ok := h.uncollected(pid); ok && useProc {
			return statusOf(ws), true
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return unknownStatus, true
		case <-stop:
			return 0, false
		}
	}
}

// ended reports whether the process of a pidfd has ended, with all its threads.
func ended(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err != nil || n > 0
	}
}

// collected returns the wait status of a process that its parent has collected.
func (h *handle) collected() (unix.WaitStatus, bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	var ierr error
	err := h.conn.Control(func(fd uintptr) { ierr = unix.IoctlPidfdInfo(int(fd), &info) })
	if err != nil || ierr != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return 0, false
	}
	return unix.WaitStatus(info.Exit_code), true
}

// uncollected returns the wait status of a process that has ended, and that its parent has not
// collected.
func (h *handle) uncollected(pid int) (unix.WaitStatus, bool) {
	fields, err := stat(pid)
	if err != nil || len(fields) < 50 {
		return 0, false
	}
	code, err := strconv.ParseUint(fields[49], 10, 32) // field 52
	if err != nil || h.signal(0) != nil {
		return 0, false // collected since: the data may be another process's
	}
	return unix.WaitStatus(code), true
}

// signal signals the process. One that has ended accepts signals, without effect, until it is
// collected.
func (h *handle) signal(sig syscall.Signal) error {
	var serr error
	err := h.conn.Control(func(fd uintptr) { serr = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	switch {
	case errors.Is(err, os.ErrClosed), errors.Is(serr, unix.ESRCH):
		return os.ErrProcessDone
	default:
		return errors.Join(err, serr)
	}
}

// StartTime returns when the process was started, in clock ticks since the machine's start. It
// does not change during the process's life, even if it executes another program, and a later
// process of the same pid has another: a pid and its start time identify a process for good. A pid that
// is not in use is os.ErrProcessDone.
func StartTime(pid int) (uint64, error) {
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	if len(fields) < 20 {
		return 0, fmt.Errorf("read start time of process %d: %w", pid, unix.EBADMSG)
	}
	t, err := strconv.ParseUint(fields[19], 10, 64) // field 22
	if err != nil {
		return 0, fmt.Errorf("read start time of process %d: %w", pid, err)
	}
	return t, nil
}

// stat returns the fields of /proc/PID/stat from the third on: the second is the program's name,
// in parentheses, and may contain anything.
func stat(pid int) ([]string, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil, os.ErrProcessDone
	}
	if err != nil {
		return nil, fmt.Errorf("read status of process %d: %w", pid, err)
	}
	return statFields(string(data)), nil
}

func statFields(text string) []string {
	return strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
}

// mayTrace reports whether this process may trace others: /proc shows how a process ended only to
// those, and 0 to all others.
func mayTrace() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_PTRACE) != 0
}

// atLeast compares a kernel's release, such as "6.18.44-1-amd64", with a version.
func atLeast(release string, major, minor int) bool {
	first, rest, _ := strings.Cut(release, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		rest = rest[:end]
	}
	a, err1 := strconv.Atoi(first)
	b, err2 := strconv.Atoi(rest)
	if err1 != nil || err2 != nil {
		return false
	}
	return a > major || a == major && b >= minor
}

// closeAdopted ends the waits for adopted processes. The caller has closed stop.
func (r *Reaper) closeAdopted() {
	r.mu.Lock()
	for c := range r.adopted {
		_ = c.handle.file.Close() // ends the wait in the poller
	}
	r.mu.Unlock()
	r.wg.Wait()
}
