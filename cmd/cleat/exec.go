package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/client/spec"
	"github.com/cleatproject/cleat/client/stdio"
	"github.com/cleatproject/cleat/internal/identifier"
)

func execCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "exec [FLAGS] CONTAINER COMMAND [ARGUMENT...]", Short: "run a command in a running container",
		Long: "Exits with the command's code, and forwards signals to the command. Environment, user and working directory\n" +
			"are those of the container unless flags change them. Flags after CONTAINER belong to COMMAND.",
		Args: argCount(2, -1), ValidArgsFunction: a.completeArgs(false, listContainers("running"), nil),
		Annotations: fails125(),
	}
	p := &processFlags{}
	p.declare(cmd.Flags())
	cmd.Flags().SetInterspersed(false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		proxy, ctx := newProxy(cmd.Context())
		defer proxy.close()
		err := a.withClient(ctx, func(c *client.Client) error {
			return byID(ctx, c, args[0], func(id string) error {
				x := &execution{processFlags: p, a: a, c: c, proxy: proxy, id: id, execID: "exec-" + identifier.Random(8)}
				return explain(ctx, c, id, x.do(ctx, args[1:]))
			})
		})
		if sig := proxy.cancelledBy(); sig != 0 && ctx.Err() != nil {
			return exitCode(codeSignalledBase + int(sig))
		}
		return err
	}
	return cmd
}

// execution is one execution of exec.
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
		_, _ = exited(ctx) // a process that keeps running cannot be removed
	}
	return errors.Join(err, x.remove(ctx))
}

// start starts the process, and removes it if that fails or the command was cancelled.
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

// withdraw removes a process that was not started. If the start was cancelled, it kills the process first, which may be
// running.
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
	if err == nil || errdefs.IsFailedPrecondition(err) { // exited, or not started
		return x.remove(ctx)
	}
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// wait starts to wait for the process before the process is started, so that its exit needs no further call. exited
// returns the exit; stop ends the waiting.
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

// process returns the container's process spec, changed by the flags.
func (x *execution) process(ctx context.Context, args []string) (*specs.Process, error) {
	p, err := x.c.ProcessSpec(ctx, x.id)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, fmt.Errorf("read spec of %s: no process: %w", x.id, errdefs.ErrFailedPrecondition)
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

// remove removes the exited process. The container may have been removed before.
func (x *execution) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	_, err := x.c.Delete(ctx, x.id, x.execID)
	if errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
		return nil
	}
	return err
}
