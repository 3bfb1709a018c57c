package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/client/stdio"
)

func waitCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "wait [FLAGS] CONTAINER...", Short: "wait until containers stop, then print their exit codes",
		Args: argCount(1, -1), ValidArgsFunction: a.completeArgs(true, listContainers()),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return a.withClient(ctx, func(c *client.Client) error {
				return a.inTurn(len(args), func(i int) error {
					return byID(ctx, c, args[i], func(id string) error {
						exit, err := c.Wait(ctx, id, 0)
						if err == nil {
							err = writeLines(a.stdout, []string{fmt.Sprint(exit.Status)})
						}
						return err
					})
				})
			})
		},
	}
}

func killCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "kill [FLAGS] CONTAINER...", Short: "send a signal to running containers",
		Args: argCount(1, -1), ValidArgsFunction: a.completeArgs(true, listContainers("running", "paused")),
	}
	text := cmd.Flags().StringP("signal", "s", "KILL", "`SIGNAL` to send, by name or number")
	all := cmd.Flags().BoolP("all", "a", false, "send the signal to every process of the container, not only the first")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		sig, err := parseSignal(*text)
		if err != nil {
			return err
		}
		return a.forEach(cmd.Context(), args, func(ctx context.Context, c *client.Client, id string) error {
			return explain(ctx, c, id, c.Kill(ctx, id, client.KillRequest{Signal: sig, All: *all}))
		})
	}
	return cmd
}

func stopCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "stop [FLAGS] CONTAINER...", Short: "stop running containers",
		Long: "Sends the stop signal, and KILL to containers that are still running after --time. The stop signal is\n" +
			"--stop-signal of run, or that of the image, or TERM. Stopping a stopped container does nothing.",
		Args: argCount(1, -1), ValidArgsFunction: a.completeArgs(true, listContainers("running", "paused")),
	}
	seconds := cmd.Flags().Float64P("time", "t", 10, "`SECONDS` to wait before KILL; 0 kills at once, -1 never")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		grace, err := parseGrace(*seconds)
		if err != nil {
			return err
		}
		return a.forEach(cmd.Context(), args, func(ctx context.Context, c *client.Client, id string) error {
			return stop(ctx, c, id, grace)
		})
	}
	return cmd
}

// forEver is a grace without end.
const forEver = time.Duration(-1)

// parseGrace parses a number of seconds; a negative number means forEver.
func parseGrace(seconds float64) (time.Duration, error) {
	switch {
	case math.IsNaN(seconds):
		return 0, fmt.Errorf("time %v: want a number of seconds: %w", seconds, errdefs.ErrInvalidArgument)
	case seconds < 0 || seconds >= float64(math.MaxInt64/time.Second):
		return forEver, nil
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// stop sends the container's stop signal, and KILL after the grace, which may be 0.
func stop(ctx context.Context, c *client.Client, id string, grace time.Duration) error {
	box, err := lookup(ctx, c, id)
	if err != nil || box.Status == "stopped" {
		return err
	}
	sig := syscall.SIGTERM
	if label := box.Labels[stopSignalLabel]; label != "" {
		if sig, err = parseSignal(label); err != nil {
			return err
		}
	}
	for _, step := range []struct {
		signal syscall.Signal
		grace  time.Duration
	}{{sig, grace}, {syscall.SIGKILL, forEver}} {
		if step.grace == 0 {
			continue
		}
		err := c.Kill(ctx, id, client.KillRequest{Signal: step.signal})
		if err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		if done, err := waitFor(ctx, c, id, step.grace); done || err != nil {
			return err
		}
	}
	return nil
}

// waitFor waits until the container stops, for at most a time, or forEver. A removed container counts as stopped.
func waitFor(ctx context.Context, c *client.Client, id string, timeout time.Duration) (done bool, err error) {
	bounded := ctx
	if timeout != forEver {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	_, err = c.Wait(bounded, id, 0)
	switch {
	case err == nil, errdefs.IsNotFound(err):
		return true, nil
	case ctx.Err() == nil && timeout != forEver && errors.Is(err, context.DeadlineExceeded):
		return false, nil
	}
	return false, err
}

func pauseCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "pause [FLAGS] CONTAINER...", Short: "pause running containers",
		Args: argCount(1, -1), ValidArgsFunction: a.completeArgs(true, listContainers("running")),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.forEach(cmd.Context(), args, func(ctx context.Context, c *client.Client, id string) error {
				return explain(ctx, c, id, c.Pause(ctx, id))
			})
		},
	}
}

func resumeCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "resume [FLAGS] CONTAINER...", Short: "resume paused containers", Aliases: []string{"unpause"},
		Args: argCount(1, -1), ValidArgsFunction: a.completeArgs(true, listContainers("paused")),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.forEach(cmd.Context(), args, func(ctx context.Context, c *client.Client, id string) error {
				return explain(ctx, c, id, c.Resume(ctx, id))
			})
		},
	}
}

func rmCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "rm [FLAGS] CONTAINER...", Short: "remove containers with their writable layers and logs", Aliases: []string{"remove"},
		Args: argCount(1, -1), ValidArgsFunction: a.completeArgs(true, listContainers()),
	}
	force := cmd.Flags().BoolP("force", "f", false, "kill running containers first")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.forEach(cmd.Context(), args, func(ctx context.Context, c *client.Client, id string) error {
			err := c.Remove(ctx, id, *force)
			if errdefs.IsFailedPrecondition(err) && !*force {
				return hinted(err, "cleat stop "+id+" stops it; cleat rm --force "+id+" kills and removes it")
			}
			if err != nil {
				return err
			}
			return stdio.Collect(c.StdioRoot())
		})
	}
	return cmd
}
