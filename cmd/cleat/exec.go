package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/client/spec"
	"github.com/cleatproject/cleat/client/stdio"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"
)

func execCommand() command {
	return command{
		name: "exec", args: "CONTAINER COMMAND [ARGUMENT...]", min: 2, max: -1, ordered: true, failure: codeOwnFailure,
		short: "run a further command in a running container",
		detail: `It exits with the command's code, and passes signals on to it. Environment, user and working
directory are the container's unless flags say otherwise.`,
		setup: func(fs *pflag.FlagSet) action {
			p := &processFlags{}
			p.declare(fs)
			return func(ctx context.Context, a *app, args []string) error {
				proxy, ctx := newProxy(ctx)
				defer proxy.close()
				err := a.withClient(ctx, func(c *client.Client) error {
					return byID(ctx, c, args[0], func(id string) error {
						x := &execution{processFlags: p, a: a, c: c, proxy: proxy, id: id, execID: "exec-" + newID()[:16]}
						return explain(ctx, c, id, x.do(ctx, args[1:]))
					})
				})
				if sig := proxy.cancelledBy(); sig != 0 && ctx.Err() != nil {
					return exitCode(codeSignalledBase + int(sig))
				}
				return err
			}
		},
	}
}

// execution is one exec on its way.
type execution struct {
	*processFlags
	a          *app
	c          *client.Client
	proxy      *proxy
	id, execID string
}

func (x *execution) do(ctx context.Context, args []string) (err error) {
	term, err := x.a.openTerminal(x.processFlags)
	if err != nil {
		return err
	}
	process, err := x.process(ctx, args)
	if err != nil {
		return err
	}
	if w, h, ok := term.size(); ok {
		process.ConsoleSize = &specs.Box{Width: uint(w), Height: uint(h)}
	}
	io := client.Stdio{Terminal: x.tty}
	var set *stdio.Set
	if !x.detach {
		set, err = stdio.New(x.c.StdioRoot(), stdio.Want{Stdin: x.interactive, Stdout: true, Stderr: !x.tty})
		if err != nil {
			return err
		}
		defer func() { err = firstError(err, set.Close()) }()
		io.Stdin, io.Stdout, io.Stderr = set.Paths.Stdin, set.Paths.Stdout, set.Paths.Stderr
	}
	if err := x.c.Exec(ctx, x.id, x.execID, process, io); err != nil {
		return errors.Join(err, x.withdraw(ctx))
	}
	if x.detach {
		return x.start(ctx)
	}
	exited, stopWait := x.wait(ctx)
	defer stopWait()
	if err := x.start(ctx); err != nil {
		return err
	}
	s := &session{
		a: x.a, c: x.c, proxy: x.proxy, term: term, set: set, id: x.id, execID: x.execID,
		input: x.interactive, signals: true,
		wait: exited,
	}
	err = s.run(ctx)
	if errors.As(err, new(hangup)) {
		ctx, cancel := context.WithTimeout(ctx, killAfter)
		defer cancel()
		_, _ = exited(ctx) // one that goes on without its terminal cannot be freed
	}
	return errors.Join(err, x.remove(ctx))
}

// start runs the declared process, and frees it where that fails or its end was asked for.
func (x *execution) start(ctx context.Context) error {
	_, err := x.c.Start(ctx, x.id, x.execID)
	if err == nil && !x.proxy.hold() {
		err = ctx.Err()
	}
	if err == nil {
		return nil
	}
	return errors.Join(err, x.withdraw(ctx))
}

// withdraw frees a process that came to nothing. Where its start was cancelled it is killed first: it
// may have begun to run all the same.
func (x *execution) withdraw(ctx context.Context) error {
	if ctx.Err() == nil {
		return x.remove(ctx)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	err := x.c.Kill(ctx, x.id, client.KillRequest{ExecID: x.execID, Signal: syscall.SIGKILL})
	if err == nil {
		_, err = x.c.WaitProcess(ctx, x.id, x.execID)
	}
	if err == nil || errdefs.IsFailedPrecondition(err) { // it has exited, or has not begun
		return x.remove(ctx)
	}
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// wait waits for the process from before it is started, so that its exit is told without being
// asked for. exited returns it; stop ends the waiting.
func (x *execution) wait(ctx context.Context) (exited func(context.Context) (client.Exit, error), stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	var exit client.Exit
	var err error
	go func() {
		defer close(done)
		exit, err = x.c.WaitProcess(ctx, x.id, x.execID)
	}()
	exited = func(ctx context.Context) (client.Exit, error) {
		select {
		case <-done:
			return exit, err
		case <-ctx.Done():
			return client.Exit{}, ctx.Err()
		}
	}
	return exited, func() {
		cancel()
		<-done
	}
}

// process is the container's own process with what the flags change.
func (x *execution) process(ctx context.Context, args []string) (*specs.Process, error) {
	p, err := x.c.ProcessSpec(ctx, x.id)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, fmt.Errorf("read spec of %s: it has no process: %w", x.id, errdefs.ErrFailedPrecondition)
	}
	env, err := x.environment()
	if err != nil {
		return nil, err
	}
	if x.tty {
		p.Env = spec.MergeEnv([]string{"TERM=xterm"}, p.Env)
	}
	p.Env = spec.MergeEnv(p.Env, env)
	p.Args, p.Terminal, p.ConsoleSize = args, x.tty, nil
	if x.workdir != "" {
		p.Cwd = x.workdir
	}
	if x.privileged {
		if p.Capabilities, err = spec.AllCapabilities(); err != nil {
			return nil, err
		}
	}
	if x.user == "" {
		return p, nil
	}
	p.User, err = x.c.LookupUser(ctx, x.id, x.user)
	return p, err
}

// remove frees the ended process; the container may have ended, and have been removed, before it.
func (x *execution) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	_, err := x.c.Delete(ctx, x.id, x.execID)
	if errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
		return nil
	}
	return err
}

func attachCommand() command {
	return command{
		name: "attach", args: "CONTAINER", min: 1, max: 1, failure: codeOwnFailure,
		short: "connect to the stdio of a running container",
		detail: `Works for a container that was run with --detach --tty, or whose client was killed or lost its terminal;
for one that keeps a log it follows that. It exits with the container's code. One client at a time can be attached.`,
		setup: func(fs *pflag.FlagSet) action {
			noStdin := fs.Bool("no-stdin", false, "do not send input")
			sigProxy := fs.Bool("sig-proxy", true, "pass signals on to the container")
			return func(ctx context.Context, a *app, args []string) error {
				proxy, ctx := newProxy(ctx)
				defer proxy.close()
				err := a.withContainer(ctx, args[0], func(c *client.Client, box client.Container) error {
					return attach(ctx, a, c, proxy, box, !*noStdin, *sigProxy)
				})
				if sig := proxy.cancelledBy(); sig != 0 && ctx.Err() != nil {
					return exitCode(codeSignalledBase + int(sig))
				}
				return err
			}
		},
	}
}

func attach(ctx context.Context, a *app, c *client.Client, proxy *proxy, box client.Container, input, signals bool) error {
	if box.Status == "stopped" {
		return hinted(fmt.Errorf("attach to %s: it has ended: %w", box.ID, errdefs.ErrFailedPrecondition),
			"cleat logs shows what a log has kept of it")
	}
	// Without --interactive at run there is no stdin to connect, and no need for a terminal here.
	input = input && box.Stdio.Stdin != ""
	term, err := a.openTerminal(&processFlags{tty: box.Stdio.Terminal, interactive: input})
	if err != nil {
		return err
	}
	s := &session{
		a: a, c: c, proxy: proxy, term: term, id: box.ID, input: input, signals: signals,
		wait: func(ctx context.Context) (client.Exit, error) { return c.Wait(ctx, box.ID, 0) },
	}
	if paths, ok := fifos(box); ok {
		if s.set, err = stdio.Open(paths); err != nil {
			return err
		}
		defer func() { _ = s.set.Close() }() // the exit code says more
	}
	if path := logFile(box); path != "" {
		return s.runWithLog(ctx, path)
	}
	if s.set == nil {
		return hinted(fmt.Errorf("attach to %s: its stdio is connected to nothing: %w", box.ID, errdefs.ErrFailedPrecondition),
			"run with --detach --tty --interactive to attach later")
	}
	if err := s.run(ctx); !isExit(err) {
		return err
	} else {
		s.set.Discard()
		return err
	}
}

func isExit(err error) bool {
	var exit exitCode
	return errors.As(err, &exit)
}

// fifos are those of a container's streams that are FIFOs.
func fifos(box client.Container) (stdio.Paths, bool) {
	p := stdio.Paths{Stdin: fifoPath(box.Stdio.Stdin), Stdout: fifoPath(box.Stdio.Stdout), Stderr: fifoPath(box.Stdio.Stderr)}
	return p, p != stdio.Paths{}
}

func fifoPath(uri string) string {
	if len(uri) > 0 && uri[0] == '/' {
		return uri
	}
	return ""
}

// since says how long ago something was, for people.
func since(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := now.Sub(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}
