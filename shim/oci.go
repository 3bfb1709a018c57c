package shim

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	runc "github.com/containerd/go-runc"

	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/reaper"
	"github.com/cleatproject/cleat/shim/cgroup"
)

// runtimeGrace is how long an invocation of the OCI runtime may continue after its caller has given
// up: one killed half-way can leave an unknown cgroup or process behind.
const runtimeGrace = 10 * time.Second

// ociRuntime invokes an OCI runtime for one container, by go-runc.
type ociRuntime struct {
	monitor       *monitor
	binary        string
	root          string
	systemdCgroup bool
	bundle        string        // for its logs and transient files
	grace         time.Duration // see runtimeGrace, which is the default
	serial        atomic.Uint64
}

// runtimeError is an error that the OCI runtime reported. Its text begins as clients of the task API
// match it:
// "OCI runtime create failed: ", with the verb.
type runtimeError struct {
	verb   string
	status int
	msg    string
	class  error
}

func (e *runtimeError) Error() string {
	if e.msg == "" {
		return fmt.Sprintf("OCI runtime %s failed: exit status %d", e.verb, e.status)
	}
	return fmt.Sprintf("OCI runtime %s failed: %s", e.verb, e.msg)
}

func (e *runtimeError) Unwrap() error { return e.class }

// processIO passes the stdio of a process to the OCI runtime; /dev/null if nil.
type processIO [3]*os.File

var _ runc.IO = processIO{}

// Set implements runc.IO. A nil *os.File in an interface is not nil.
func (p processIO) Set(cmd *exec.Cmd) {
	if p[0] != nil {
		cmd.Stdin = p[0]
	}
	if p[1] != nil {
		cmd.Stdout = p[1]
	}
	if p[2] != nil {
		cmd.Stderr = p[2]
	}
}

// Stdin, Stdout, Stderr and Close implement runc.IO. The stdio belongs to the caller.
func (processIO) Stdin() io.WriteCloser { return nil }
func (processIO) Stdout() io.ReadCloser { return nil }
func (processIO) Stderr() io.ReadCloser { return nil }
func (processIO) Close() error          { return nil }

// temp returns a unique name in the bundle.
func (r *ociRuntime) temp(prefix, suffix string) string {
	return filepath.Join(r.bundle, "."+prefix+"-"+strconv.FormatUint(r.serial.Add(1), 10)+suffix)
}

// run has call invoke the runtime once, by the go-runc method named verb. If ctx ends first, the command may finish
// within runtimeGrace and is killed after it; run then returns its actual outcome, so that the caller knows what to
// undo.
func (r *ociRuntime) run(ctx context.Context, verb string, call func(context.Context, *runc.Runc) error) error {
	return r.follow(ctx, verb, &invocation{}, call)
}

// read is like run, for a command whose output the caller reads.
func (r *ociRuntime) read(ctx context.Context, verb string, call func(context.Context, *runc.Runc) error) error {
	return r.follow(ctx, verb, &invocation{output: true}, call)
}

func (r *ociRuntime) follow(ctx context.Context, verb string, inv *invocation, call func(context.Context, *runc.Runc) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("OCI runtime %s: %w", verb, err)
	}
	log, removeLog := r.logFile()
	defer removeLog()
	rt := &runc.Runc{Command: r.binary, Root: r.root, Log: log, LogFormat: runc.JSON, SystemdCgroup: r.systemdCgroup}
	if exists(r.bundle) { // else the runtime can still delete the container
		rt.WorkDir = r.bundle
	}
	limit := cmp.Or(r.grace, runtimeGrace)
	grace, cancel := withGrace(ctx, limit)
	defer cancel()
	err := r.monitor.follow(grace, inv, func(ctx context.Context) error { return call(ctx, rt) })
	switch {
	case inv.err != nil:
		return r.notRun(verb, inv.err)
	case inv.status == 0 && err != nil:
		return fmt.Errorf("OCI runtime %s failed: %w", verb, err)
	case inv.status == 0:
		return nil
	case grace.Err() != nil:
		return fmt.Errorf("OCI runtime %s: killed after %v: %w", verb, limit, context.Cause(ctx))
	}
	msg := lastError(log)
	return reason.With(&runtimeError{verb: verb, status: inv.status, msg: msg, class: classOf(msg)}, reason.FromRuntime(msg))
}

// notRun returns the error of an invocation that could not be started or waited for.
func (r *ociRuntime) notRun(verb string, err error) error {
	if errors.Is(err, reaper.ErrClosed) {
		return fmt.Errorf("OCI runtime %s: %w", verb, err)
	}
	if _, lookErr := exec.LookPath(r.binary); lookErr != nil {
		err = fmt.Errorf("no OCI runtime %s on this host: %w: %w", r.binary, err, reason.RuntimeMissing)
	}
	return fmt.Errorf("OCI runtime %s failed: %w", verb, err)
}

// withGrace returns a context that ends when limit has passed after the end of ctx, or with cancel.
func withGrace(ctx context.Context, limit time.Duration) (grace context.Context, cancel func()) {
	grace, end := context.WithCancel(context.WithoutCancel(ctx))
	timer := time.AfterFunc(math.MaxInt64, end)
	stop := context.AfterFunc(ctx, func() { timer.Reset(limit) })
	return grace, func() {
		stop()
		timer.Stop()
		end()
	}
}

// logFile creates a file for the runtime's log. If the disk is full the log is discarded: a runtime
// that cannot open its log does nothing at all.
func (r *ociRuntime) logFile() (path string, remove func()) {
	path = r.temp("runtime", ".json")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return os.DevNull, func() {}
	}
	_ = f.Close()                               // nothing was written
	return path, func() { _ = os.Remove(path) } // in a bundle that is removed
}

// lastError returns the last error of the runtime's JSON log.
func lastError(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	msg := ""
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var entry struct {
			Level string `json:"level"`
			Msg   string `json:"msg"`
		}
		if json.Unmarshal(lines.Bytes(), &entry) != nil {
			continue
		}
		if entry.Level == "error" || entry.Level == "fatal" || entry.Level == "panic" {
			msg = entry.Msg
		}
	}
	return strings.TrimSpace(msg)
}

// classOf maps messages of runtimes to the classes that clients switch on.
func classOf(msg string) error {
	has := func(texts ...string) bool {
		for _, t := range texts {
			if strings.Contains(msg, t) {
				return true
			}
		}
		return false
	}
	switch {
	case has("with given ID already exists", "already exists"):
		return errdefs.ErrAlreadyExists
	case has("executable file not found", "exec: ", "stat ") && has("no such file or directory", "executable file not found"):
		return errdefs.ErrNotFound
	case has("cannot pause", "cannot resume", "not paused", "criu", "CRIU"):
		return errdefs.ErrFailedPrecondition
	case has("does not exist", "process already finished", "container not running", "no such process"):
		return errdefs.ErrNotFound
	case has("permission denied"):
		return errdefs.ErrPermissionDenied
	case has("invalid", "cannot unmarshal", "unknown capability"):
		return errdefs.ErrInvalidArgument
	default:
		return errdefs.ErrUnknown
	}
}

// readPid returns the pid that the runtime wrote, or an error.
func readPid(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read pid: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("read pid: %q is not a pid: %w", data, errdefs.ErrInternal)
	}
	return pid, nil
}

// forget has the OCI runtime kill and delete a container, and removes the cgroups that remain.
// Idempotent.
//
// runc gives ending threads 150 ms to leave the cgroups, which is too little on a busy machine. Then it fails or,
// depending on its version, reports nothing; it has deleted its state and will not remove them. Nor does it know
// the cgroups created by a runc that was killed before it recorded them.
func (r *ociRuntime) forget(ctx context.Context, id string) error {
	remove := func(ctx context.Context, rt *runc.Runc) error {
		return rt.Delete(ctx, id, &runc.DeleteOpts{Force: true})
	}
	err := r.run(ctx, "delete", remove)
	cerr := cgroup.RemoveOf(ctx, r.bundle)
	switch {
	case err == nil, errors.Is(err, errdefs.ErrNotFound):
		return nil // a remaining cgroup has other processes in it
	case cerr != nil:
		return errors.Join(err, cerr)
	}
	if again := r.run(ctx, "delete", remove); again != nil && !errors.Is(again, errdefs.ErrNotFound) {
		return err
	}
	return nil
}
