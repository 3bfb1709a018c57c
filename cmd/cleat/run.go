package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/client/spec"
	"github.com/cleatproject/cleat/client/stdio"
	"github.com/cleatproject/cleat/internal/identifier"
)

func runCommand(a *app) *cobra.Command {
	r := &runFlags{}
	cmd := &cobra.Command{
		Use: "run [FLAGS] IMAGE [COMMAND [ARGUMENT...]]", Short: "run a command in a new container",
		Long: "Without --detach, run shows the output, forwards signals and exits with the container's code; the third\n" +
			"interrupt within five seconds kills the container. With --detach it prints the container's id, and the\n" +
			"output is kept for cleat logs unless --log changes that. Flags after IMAGE belong to COMMAND.",
		Args: argCount(1, -1), ValidArgsFunction: a.completeRun(&r.rootfs),
		Annotations: fails125(),
	}
	r.declare(cmd.Flags())
	cmd.Flags().SetInterspersed(false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return r.act(cmd.Context(), a, cmd.Flags(), args) }
	return cmd
}

// runner is one execution of run.
type runner struct {
	*runFlags
	a     *app
	c     *client.Client
	proxy *proxy
	term  *terminal
	set   *stdio.Set
	req   client.RunRequest
}

func (r *runFlags) act(ctx context.Context, a *app, fs *pflag.FlagSet, args []string) error {
	proxy, ctx := newProxy(ctx)
	defer proxy.close()
	err := a.withClient(ctx, func(c *client.Client) error {
		run := &runner{runFlags: r, a: a, c: c, proxy: proxy}
		return run.do(ctx, fs, args)
	})
	if sig := proxy.cancelledBy(); sig != 0 && ctx.Err() != nil {
		return exitCode(codeSignalledBase + int(sig))
	}
	return err
}

func (r *runner) do(ctx context.Context, fs *pflag.FlagSet, args []string) (err error) {
	if r.term, err = r.a.openTerminal(&r.processFlags); err != nil {
		return err
	}
	if err := r.prepare(ctx, fs, args); err != nil {
		return err
	}
	if err := r.openStdio(); err != nil {
		return err
	}
	if r.set != nil {
		defer func() { err = firstError(err, r.set.Close()) }()
	}
	started, err := r.c.Run(ctx, r.req)
	if err != nil {
		r.discard()
		return r.hint(err)
	}
	if (r.detach || r.sigProxy) && !r.proxy.hold() {
		return errors.Join(ctx.Err(), r.undo(ctx))
	}
	if err := stdio.Collect(r.c.StdioRoot()); err != nil {
		return err
	}
	if r.detach {
		err := r.a.print(started.ID + "\n")
		if isExit(err) { // the output has no reader
			return exitCode(codeOwnFailure)
		}
		return err
	}
	return r.attend(ctx, started)
}

// prepare builds the request from the image configuration and the flags.
func (r *runner) prepare(ctx context.Context, fs *pflag.FlagSet, args []string) error {
	id := r.name
	if id == "" {
		id = identifier.New()
	}
	r.req = client.RunRequest{
		ID: id, User: r.user, Snapshotter: r.snapshotter, Runtime: r.runtime, AutoRemove: r.remove && !r.readsLogOfDaemon(),
	}
	var image spec.Image
	if r.rootfs {
		dir, err := filepath.Abs(args[0])
		if err != nil {
			return fmt.Errorf("find root file system: %w", err)
		}
		r.req.RootFS = dir
	} else {
		details, err := r.c.Inspect(ctx, args[0], r.platform)
		if err != nil {
			return err
		}
		if image, err = spec.ParseImage(details.Config); err != nil {
			return err
		}
		r.req.Image, r.req.Platform = args[0], r.platform
		r.req.User = cmp.Or(r.user, image.User)
	}
	o, err := r.options(fs, id, args[1:])
	if err != nil {
		return err
	}
	if r.req.Spec, err = spec.Generate(image, o); err != nil {
		return err
	}
	if w, h, ok := r.term.size(); ok {
		r.req.Spec.Process.ConsoleSize = &specs.Box{Width: uint(w), Height: uint(h)}
	}
	if r.req.StorageSize, err = r.storageLimit(fs); err != nil {
		return err
	}
	r.req.Labels, err = r.labelMap(image)
	return err
}

// readsLogOfDaemon reports whether this program shows a log that it can only read through the daemon. It then removes
// the container itself, after it has read the whole log.
func (r *runner) readsLogOfDaemon() bool { return r.log != "" && !r.detach && os.Geteuid() != 0 }

// openStdio selects the destination of the process's stdio and creates the FIFOs for it.
func (r *runner) openStdio() (err error) {
	io := &r.req.Stdio
	io.Terminal = r.tty
	want := stdio.Want{Stdin: r.interactive}
	attached := false
	switch {
	case r.log == "daemon" && r.tty:
		return fmt.Errorf("log of a terminal: not supported by the daemon: %w", errdefs.ErrInvalidArgument)
	case r.log == "daemon", r.log == "" && r.detach && !r.tty:
		r.req.Log = true
	case r.log == "":
		attached = true
		want.Stdout, want.Stderr = true, !r.tty
	case r.log == "none":
	case strings.HasPrefix(r.log, fileLog), strings.HasPrefix(r.log, "binary://"):
		io.Stdout = r.log
		if !r.tty {
			io.Stderr = r.log
		}
	default:
		return fmt.Errorf("log %q: want daemon, none, file:///PATH or binary:///PATH: %w", r.log, errdefs.ErrInvalidArgument)
	}
	if want == (stdio.Want{}) {
		return nil
	}
	if r.detach {
		r.set, err = stdio.Reserve(r.c.StdioRoot(), want)
	} else {
		r.set, err = stdio.New(r.c.StdioRoot(), want)
	}
	if err != nil {
		return err
	}
	io.Stdin = r.set.Paths.Stdin
	if attached {
		io.Stdout, io.Stderr = r.set.Paths.Stdout, r.set.Paths.Stderr
	}
	return nil
}

// attend waits until the container exits, and removes it with --rm.
func (r *runner) attend(ctx context.Context, started client.Started) error {
	s := &session{
		a: r.a, c: r.c, proxy: r.proxy, term: r.term, set: r.set, id: started.ID,
		input: r.interactive, signals: r.sigProxy,
		wait: func(ctx context.Context) (client.Exit, error) { return r.c.Wait(ctx, started.ID, started.Cursor) },
	}
	var err error
	if path := r.logPath(started); path != "" {
		err = s.runWithLog(ctx, path)
	} else {
		err = s.run(ctx)
	}
	var exit exitCode
	if !r.remove || !errors.As(err, &exit) {
		return err
	}
	if rerr := r.c.Remove(ctx, started.ID, true); rerr != nil && !removesLater(ctx, rerr) {
		return rerr
	}
	return err
}

// removesLater reports whether the daemon completes the removal of a stopped container with AutoRemove: it has removed
// the container already, or it stopped during the call and removes the container at its next start.
func removesLater(ctx context.Context, err error) bool {
	switch client.ReasonOf(err) {
	case client.ReasonDaemonUnreachable, client.ReasonConnectionLost, client.ReasonDaemonStopping:
		return true
	}
	cut := errors.Is(err, context.Canceled) && ctx.Err() == nil // by a daemon that is stopping
	return cut || errdefs.IsNotFound(err)
}

// logPath returns the log file that this program can show, or "".
func (r *runner) logPath(started client.Started) string {
	if r.req.Log {
		return started.LogPath
	}
	return filePath(r.log)
}

// undoTime bounds the clean-up of a cancelled run.
const undoTime = 10 * time.Second

// undo removes the container of a run that was cancelled before the session began.
func (r *runner) undo(ctx context.Context) error {
	r.discard()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	err := r.c.Remove(ctx, r.req.ID, true)
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// discard removes the FIFOs of a failed run.
func (r *runner) discard() {
	if r.set != nil {
		r.set.Discard()
	}
}

func (r *runner) hint(err error) error {
	if client.ReasonOf(err) == client.ReasonContainerExists {
		return hinted(err, "cleat rm "+r.req.ID+" removes the container of that name; --name selects another")
	}
	return err
}

// firstError returns err, or later if err is nil.
func firstError(err, later error) error {
	if err == nil {
		return later
	}
	return err
}
