package shim

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/reaper"
)

// runtimeGrace is how long an invocation of the OCI runtime may go on after its caller has given
// up: one killed half-way can leave a cgroup or a process behind that nobody knows of.
const runtimeGrace = 10 * time.Second

// ociRuntime runs an OCI runtime's command line for one container.
type ociRuntime struct {
	reaper        *reaper.Reaper
	binary        string
	root          string
	systemdCgroup bool
	bundle        string // where its logs and transient files go
	serial        atomic.Uint64
}

// command is one invocation.
type command struct {
	args                  []string
	stdin, stdout, stderr *os.File // /dev/null where nil
}

// runtimeError is what the OCI runtime reported. Its text begins as clients of the task API match it:
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

// temp returns a name in the bundle that nobody else uses.
func (r *ociRuntime) temp(prefix, suffix string) string {
	return filepath.Join(r.bundle, "."+prefix+"-"+strconv.FormatUint(r.serial.Add(1), 10)+suffix)
}

// runtimeEnv is the environment of the OCI runtime: the shim's, less what was set for the shim alone.
// One P is right for a process that waits, and slow for one that works.
func runtimeEnv(env []string) []string {
	return slices.DeleteFunc(env, func(v string) bool {
		return strings.HasPrefix(v, "GOMAXPROCS=") || strings.HasPrefix(v, "CLEAT_")
	})
}

// run runs one command to its end. If ctx ends first, the command may finish within runtimeGrace
// and is killed after it; the answer is then what became of it, so that the caller knows what to
// take back.
func (r *ociRuntime) run(ctx context.Context, c command) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("OCI runtime %s: %w", c.args[0], err)
	}
	log, removeLog := r.logFile()
	defer removeLog()
	args := []string{"--root", r.root, "--log", log, "--log-format", "json"}
	if r.systemdCgroup {
		args = append(args, "--systemd-cgroup")
	}
	cmd := exec.Command(r.binary, append(args, c.args...)...) //nolint:noctx // see runtimeGrace
	if exists(r.bundle) {                                     // else it can still be asked to forget the container
		cmd.Dir = r.bundle
	}
	cmd.Env = runtimeEnv(os.Environ())
	// A nil *os.File in an io.Reader is not nil.
	if c.stdin != nil {
		cmd.Stdin = c.stdin
	}
	if c.stdout != nil {
		cmd.Stdout = c.stdout
	}
	if c.stderr != nil {
		cmd.Stderr = c.stderr
	}
	child, err := r.reaper.Spawn(cmd)
	if err != nil {
		if _, lookErr := exec.LookPath(r.binary); lookErr != nil {
			err = fmt.Errorf("no OCI runtime %s on this host: %w: %w", r.binary, err, reason.RuntimeMissing)
		}
		return fmt.Errorf("OCI runtime %s failed: %w", c.args[0], err)
	}
	exit, err := settle(ctx, child)
	if err != nil {
		return fmt.Errorf("OCI runtime %s: %w", c.args[0], err)
	}
	if exit.Status == 0 {
		return nil
	}
	msg := lastError(log)
	return reason.With(&runtimeError{verb: c.args[0], status: exit.Status, msg: msg, class: classOf(msg)}, reason.FromRuntime(msg))
}

// logFile makes a file for the runtime's log. If the disk is full the log goes nowhere: a
// runtime that cannot open its log does nothing at all.
func (r *ociRuntime) logFile() (path string, remove func()) {
	path = r.temp("runtime", ".json")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return os.DevNull, func() {}
	}
	_ = f.Close()                               // nothing was written
	return path, func() { _ = os.Remove(path) } // in a bundle that goes
}

// settle waits for a command that should not be cut short.
func settle(ctx context.Context, child *reaper.Child) (reaper.Exit, error) {
	select {
	case <-child.Done():
		return child.Exit(), nil
	case <-ctx.Done():
	}
	timer := time.NewTimer(runtimeGrace)
	defer timer.Stop()
	select {
	case <-child.Done():
		return child.Exit(), nil
	case <-timer.C:
	}
	if err := child.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return reaper.Exit{}, err
	}
	<-child.Done() // a killed child is collected
	return reaper.Exit{}, fmt.Errorf("killed after %v: %w", runtimeGrace, context.Cause(ctx))
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

// classOf sorts what runtimes say into the classes that clients switch on.
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

// named adds the operation and its object to an error, unless it is the OCI runtime's own, which
// clients match from its beginning.
func named(operation, id string, err error) error {
	if strings.HasPrefix(err.Error(), "OCI runtime ") {
		return err
	}
	return fmt.Errorf("%s %.80s: %w", operation, id, err)
}

// readPid returns the pid that the runtime wrote, or an error.
func readPid(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read pid: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("read pid: %q is none: %w", data, errdefs.ErrInternal)
	}
	return pid, nil
}
