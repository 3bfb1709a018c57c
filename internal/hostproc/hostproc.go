// Package hostproc starts processes that do not inherit the attributes of the process that starts
// them: scheduling policy, nice value, I/O priority, CPU affinity, resource limits and
// oom_score_adj. The reference is process 1, which has the attributes that the host's administrator set for
// all processes; the scheduling policy and nice value are the kernel's defaults.
//
// The attributes of a thread (see sched(7)) are changed on a thread created for the
// start of the process, so that the process never has others. Resource limits and oom_score_adj
// belong to whole processes and are changed from outside once the process exists. The soft limit of
// the stack is an exception: execve(2) keeps a copy of it and restores that copy, so the calling
// process itself adopts the host's.
//
// A value that may not be set, for lack of CAP_SYS_NICE or CAP_SYS_RESOURCE, is not changed and
// reported once, by the function New.
package hostproc

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Attributes are those that differ from the host's in the calling process. The zero value changes
// nothing. Its methods may be called concurrently.
type Attributes struct {
	thread   bool // the scheduling attributes differ
	affinity *unix.CPUSet
	limits   map[int]unix.Rlimit
}

// New compares the calling process with the host. The warnings name what cannot be set.
func New() (Attributes, []error) {
	var a Attributes
	var warnings []error
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		warnings = append(warnings, fmt.Errorf("read scheduling attributes: %w", err))
	} else {
		a.thread = attr.Policy != unix.SCHED_NORMAL || attr.Nice != 0 || attr.Flags != 0
	}
	if class, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, ioprioProcess, 0, 0); errno == 0 && class>>ioprioShift != 0 {
		a.thread = true
	}
	var own, host unix.CPUSet
	if unix.SchedGetaffinity(0, &own) == nil && unix.SchedGetaffinity(1, &host) == nil && own != host {
		a.thread, a.affinity = true, &host
	}
	if a.thread {
		if err := onThread(a.setThread); err != nil {
			warnings = append(warnings, err)
		}
	}
	warnings = append(warnings, a.compareLimits()...)
	return a, warnings
}

const (
	ioprioProcess = 1  // IOPRIO_WHO_PROCESS: a thread, see ioprio_set(2)
	ioprioShift   = 13 // IOPRIO_CLASS_SHIFT
)

// Start calls start, which starts a process, on a thread with the host's attributes.
func (a Attributes) Start(start func() error) error {
	if !a.thread {
		return start()
	}
	return onThread(func() error {
		_ = a.setThread() // reported by New
		return start()
	})
}

// onThread runs f on a thread that ends with it, so that its changes affect no other thread.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the runtime ends the thread
		done <- f()
	}()
	return <-done
}

func (a Attributes) setThread() error {
	var errs []error
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}, 0); err != nil {
		errs = append(errs, fmt.Errorf("set scheduling policy and nice value: %w", err))
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioProcess, 0, 0); errno != 0 {
		errs = append(errs, fmt.Errorf("set I/O priority: %w", errno))
	}
	if a.affinity != nil {
		if err := unix.SchedSetaffinity(0, a.affinity); err != nil {
			errs = append(errs, fmt.Errorf("set CPU affinity: %w", err))
		}
	}
	return errors.Join(errs...)
}

// compareLimits finds the resource limits in which the process differs from the host. NOFILE is
// left to the caller: the Go runtime changes it in every process it starts.
func (a *Attributes) compareLimits() (warnings []error) {
	for resource := range int(unix.RLIMIT_RTTIME) + 1 {
		if resource == unix.RLIMIT_NOFILE {
			continue
		}
		var own, host unix.Rlimit
		if unix.Prlimit(0, resource, nil, &own) != nil || unix.Prlimit(1, resource, nil, &host) != nil || own == host {
			continue
		}
		limit := host
		if resource == unix.RLIMIT_STACK {
			soft := unix.Rlimit{Cur: min(host.Cur, own.Max), Max: own.Max}
			if err := unix.Prlimit(0, resource, &soft, nil); err != nil {
				warnings = append(warnings, fmt.Errorf("set stack limit to %d: %w", soft.Cur, err))
			}
			own = soft
			if own == host {
				continue
			}
		}
		if host.Max > own.Max { // needs CAP_SYS_RESOURCE; a limit of its own is set to see
			if err := unix.Prlimit(0, resource, &unix.Rlimit{Cur: own.Cur, Max: host.Max}, nil); err != nil {
				warnings = append(warnings, fmt.Errorf("raise resource limit %d to %d: %w", resource, host.Max, err))
				limit.Cur, limit.Max = min(host.Cur, own.Max), own.Max
			}
		}
		if a.limits == nil {
			a.limits = make(map[int]unix.Rlimit)
		}
		a.limits[resource] = limit
	}
	return warnings
}

// SetLimits gives a process that was just started the host's resource limits. A process that has
// ended is not an error.
func (a Attributes) SetLimits(pid int) error {
	for resource, limit := range a.limits {
		if err := unix.Prlimit(pid, resource, &limit, nil); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("set resource limit %d of process %d: %w", resource, pid, err)
		}
	}
	return nil
}

// maxOOMScore is the largest oom_score_adj, see proc(5).
const maxOOMScore = 1000

// SetOOMScore gives a process that was just started the calling process's oom_score_adj plus one,
// at most 1000: under memory pressure it is killed before the caller, and after the processes it starts. A
// process that has ended is not an error.
func SetOOMScore(pid int) error {
	own, err := OOMScore()
	if err != nil {
		return err
	}
	err = writeOOMScore(strconv.Itoa(pid), min(own+1, maxOOMScore))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// OOMScore reads the calling process's oom_score_adj.
func OOMScore() (int, error) {
	data, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0, fmt.Errorf("read oom_score_adj: %w", err)
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0, fmt.Errorf("read oom_score_adj: %w", err)
	}
	return score, nil
}

// CanResetOOMScore reports whether the calling process and its children may set oom_score_adj to
// 0: without CAP_SYS_RESOURCE, only down to the lowest value that a process with that capability
// has set.
func CanResetOOMScore() error {
	own, err := OOMScore()
	if err != nil || own <= 0 {
		return err
	}
	if err := writeOOMScore("self", 0); err != nil {
		return err
	}
	return writeOOMScore("self", own)
}

func writeOOMScore(pid string, score int) error {
	if err := os.WriteFile("/proc/"+pid+"/oom_score_adj", []byte(strconv.Itoa(score)), 0); err != nil {
		return fmt.Errorf("set oom_score_adj of process %s to %d: %w", pid, score, err)
	}
	return nil
}

// RaiseNoFile raises the calling process's hard limit of open files to that of process 1 and its
// soft limit to the hard one, and returns the hard limit, also if err reports that it could not be
// raised. The processes it starts inherit both.
func RaiseNoFile() (hard uint64, err error) {
	var own, host unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &own); err != nil {
		return 0, fmt.Errorf("read limit of open files: %w", err)
	}
	if err := unix.Prlimit(1, unix.RLIMIT_NOFILE, nil, &host); err != nil {
		return own.Max, fmt.Errorf("read limit of open files of process 1: %w", err)
	}
	if err = unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: host.Max, Max: host.Max}, nil); err == nil {
		return host.Max, nil
	}
	err = fmt.Errorf("raise limit of open files to %d: %w", host.Max, err)
	return own.Max, errors.Join(err, unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: own.Max, Max: own.Max}, nil))
}
