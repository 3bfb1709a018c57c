package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"syscall"
	"time"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/client/stdio"
	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"
)

func waitCommand() command {
	return command{
		name: "wait", args: "CONTAINER...", min: 1, max: -1,
		short: "wait until containers have ended and print their exit codes",
		setup: func(*pflag.FlagSet) action {
			return func(ctx context.Context, a *app, args []string) error {
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
			}
		},
	}
}

func killCommand() command {
	return command{
		name: "kill", args: "CONTAINER...", min: 1, max: -1,
		short: "send a signal to containers",
		setup: func(fs *pflag.FlagSet) action {
			text := fs.StringP("signal", "s", "KILL", "`signal` by name or number")
			all := fs.BoolP("all", "a", false, "send it to every process, not only the first")
			return func(ctx context.Context, a *app, args []string) error {
				sig, err := parseSignal(*text)
				if err != nil {
					return err
				}
				return a.forEach(ctx, args, func(ctx context.Context, c *client.Client, id string) error {
					return explain(ctx, c, id, c.Kill(ctx, id, client.KillRequest{Signal: sig, All: *all}))
				})
			}
		},
	}
}

func stopCommand() command {
	return command{
		name: "stop", args: "CONTAINER...", min: 1, max: -1,
		short:  "ask containers to end, and kill those that do not",
		detail: "The signal is TERM, or the one given at run or by the image. A container that has ended is left as it is.",
		setup: func(fs *pflag.FlagSet) action {
			seconds := fs.Float64P("time", "t", 10, "`seconds` to wait before KILL; 0 kills at once, -1 never")
			return func(ctx context.Context, a *app, args []string) error {
				grace, err := parseGrace(*seconds)
				if err != nil {
					return err
				}
				return a.forEach(ctx, args, func(ctx context.Context, c *client.Client, id string) error {
					return stop(ctx, c, id, grace)
				})
			}
		},
	}
}

// forEver is a grace that has no end.
const forEver = time.Duration(-1)

// parseGrace reads a number of seconds, of which a negative one means for ever.
func parseGrace(seconds float64) (time.Duration, error) {
	switch {
	case math.IsNaN(seconds):
		return 0, fmt.Errorf("time %v: want a number of seconds: %w", seconds, errdefs.ErrInvalidArgument)
	case seconds < 0 || seconds >= float64(math.MaxInt64/time.Second):
		return forEver, nil
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// stop sends the container's stop signal, and KILL after the grace, at once where there is none.
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

// waitFor waits for the container to end, no longer than a while, or forEver. One that is gone has
// ended.
func waitFor(ctx context.Context, c *client.Client, id string, while time.Duration) (done bool, err error) {
	bounded := ctx
	if while != forEver {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, while)
		defer cancel()
	}
	_, err = c.Wait(bounded, id, 0)
	switch {
	case err == nil, errdefs.IsNotFound(err):
		return true, nil
	case ctx.Err() == nil && while != forEver && errors.Is(err, context.DeadlineExceeded):
		return false, nil
	}
	return false, err
}

func pauseCommand() command {
	return command{
		name: "pause", args: "CONTAINER...", min: 1, max: -1,
		short: "freeze containers",
		setup: func(*pflag.FlagSet) action {
			return func(ctx context.Context, a *app, args []string) error {
				return a.forEach(ctx, args, func(ctx context.Context, c *client.Client, id string) error {
					return explain(ctx, c, id, c.Pause(ctx, id))
				})
			}
		},
	}
}

func resumeCommand() command {
	return command{
		name: "resume", aliases: []string{"unpause"}, args: "CONTAINER...", min: 1, max: -1,
		short: "let frozen containers go on",
		setup: func(*pflag.FlagSet) action {
			return func(ctx context.Context, a *app, args []string) error {
				return a.forEach(ctx, args, func(ctx context.Context, c *client.Client, id string) error {
					return explain(ctx, c, id, c.Resume(ctx, id))
				})
			}
		},
	}
}

func rmCommand() command {
	return command{
		name: "rm", aliases: []string{"remove"}, args: "CONTAINER...", min: 1, max: -1,
		short: "remove containers with their writable layers and logs",
		setup: func(fs *pflag.FlagSet) action {
			force := fs.BoolP("force", "f", false, "kill those that run first")
			return func(ctx context.Context, a *app, args []string) error {
				return a.forEach(ctx, args, func(ctx context.Context, c *client.Client, id string) error {
					err := c.Remove(ctx, id, *force)
					if errdefs.IsFailedPrecondition(err) && !*force {
						return hinted(err, "cleat stop "+id+" ends it; cleat rm --force "+id+" kills and removes it")
					}
					if err != nil {
						return err
					}
					return stdio.Collect(c.StdioRoot())
				})
			}
		},
	}
}
