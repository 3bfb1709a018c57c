package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/client/stdio"
)

func attachCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "attach [FLAGS] CONTAINER", Short: "attach to the stdio of a running container",
		Long: "Works for a container that was run with --detach --tty, or whose client was killed or lost its terminal. If\n" +
			"the container has a log, attach follows the log. Exits with the container's code. One client can be\n" +
			"attached at a time.",
		Args: argCount(1, 1), ValidArgsFunction: a.completeArgs(false, listContainers("running")),
		Annotations: fails125(),
	}
	noStdin := cmd.Flags().Bool("no-stdin", false, "do not send input")
	sigProxy := cmd.Flags().Bool("sig-proxy", true, "forward signals to the container")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		proxy, ctx := newProxy(cmd.Context())
		defer proxy.close()
		err := a.withContainer(ctx, args[0], func(c *client.Client, box client.Container) error {
			return attach(ctx, a, c, proxy, box, !*noStdin, *sigProxy)
		})
		if sig := proxy.cancelledBy(); sig != 0 && ctx.Err() != nil {
			return exitCode(codeSignalledBase + int(sig))
		}
		return err
	}
	return cmd
}

func attach(ctx context.Context, a *app, c *client.Client, proxy *proxy, box client.Container, input, signals bool) error {
	if box.Status == "stopped" {
		return hinted(fmt.Errorf("attach to %s: container has stopped: %w", box.ID, errdefs.ErrFailedPrecondition),
			"cleat logs shows the log, if the container has one")
	}
	// A container that was run without --interactive has no stdin, so stdin need not be a terminal.
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
		defer func() { _ = s.set.Close() }() // the exit code matters more
	}
	if path := logFile(box); path != "" {
		return s.runWithLog(ctx, path)
	}
	if s.set == nil {
		return hinted(fmt.Errorf("attach to %s: container has no stdio to attach to: %w", box.ID, errdefs.ErrFailedPrecondition),
			"run with --detach --tty --interactive to attach later")
	}
	err = s.run(ctx)
	if isExit(err) {
		s.set.Discard()
	}
	return err
}

func isExit(err error) bool {
	var exit exitCode
	return errors.As(err, &exit)
}

// fifos returns the streams of a container that are FIFOs.
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
