package stdio

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sort"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/proto/reason"
)

// loggerLimit is how long a logger may take to report that it is ready.
const loggerLimit = 10 * time.Second

// startLogger starts the logger process of a binary:// URI and waits until it is ready. It returns
// the writing ends of its two pipes. The logger ends by itself when the container's processes have
// closed them; the shim neither waits for it nor stops it.
func startLogger(ctx context.Context, env Env, t target) (out, errs *os.File, err error) {
	outR, out, err := newPipe(env)
	if err != nil {
		return nil, nil, err
	}
	stdoutR := os.NewFile(uintptr(outR), "stdout")
	defer func() { _ = stdoutR.Close() }()
	errR, errs, err := newPipe(env)
	if err != nil {
		return nil, nil, errors.Join(err, out.Close())
	}
	stderrR := os.NewFile(uintptr(errR), "stderr")
	defer func() { _ = stderrR.Close() }()
	if err := runLogger(ctx, env, t, stdoutR, stderrR); err != nil {
		return nil, nil, errors.Join(err, out.Close(), errs.Close())
	}
	return out, errs, nil
}

func runLogger(ctx context.Context, env Env, t target, stdout, stderr *os.File) error {
	ready, readyW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer func() { _ = ready.Close() }()
	cmd := exec.Command(t.path, loggerArgs(t)...) // it outlives the request
	cmd.Env = append(slices.Clone(env.Environ), "CONTAINER_ID="+env.ID, "CONTAINER_NAMESPACE="+env.Namespace)
	cmd.ExtraFiles = []*os.File{stdout, stderr, readyW}
	child, err := env.Spawner.Spawn(cmd)
	if cerr := readyW.Close(); err == nil && cerr != nil {
		err = cerr
	}
	if err != nil {
		return reason.With(fmt.Errorf("start logger: %w: %w", err, errdefs.ErrNotFound), reason.LoggerFailed)
	}
	deadline := time.Now().Add(loggerLimit)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := ready.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("wait for logger: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err = ready.Read(make([]byte, 1)) // a byte or the end of file: both mean ready
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.Join(fmt.Errorf("logger %s did not become ready: %w", t.path, reason.LoggerFailed), child.Signal(unix.SIGKILL))
	}
	// A logger that has exited counts as ready, too: it may have forked, or read nothing. The container's
	// output is discarded then.
	return nil
}

// loggerArgs derives arguments from the URI's query: key and value in turn, sorted by key.
func loggerArgs(t target) []string {
	keys := make([]string, 0, len(t.args))
	for k := range t.args {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var args []string
	for _, k := range keys {
		for _, v := range t.args[k] {
			if args = append(args, k); v != "" {
				args = append(args, v)
			}
		}
	}
	return args
}
