package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/client"
)

// shortest is how few digits of a made-up id may stand for it.
const shortest = 3

// byID calls f with a container's id: with ref itself, and where there is no such container, with
// the made-up id that ref is the beginning of.
func byID(ctx context.Context, c *client.Client, ref string, f func(id string) error) error {
	err := f(ref)
	if !errdefs.IsNotFound(err) || len(ref) < shortest || len(ref) >= 64 || !isHex(ref) {
		return err
	}
	all, lerr := c.List(ctx, client.ListRequest{All: true})
	if lerr != nil {
		return errors.Join(err, lerr)
	}
	var found []string
	for _, box := range all {
		if len(box.ID) == 64 && strings.HasPrefix(box.ID, ref) {
			found = append(found, box.ID)
		}
	}
	switch len(found) {
	case 0:
		return err
	case 1:
		return f(found[0])
	}
	return fmt.Errorf("container %s: %d ids begin like this: %w", ref, len(found), errdefs.ErrInvalidArgument)
}

// lookup returns one container with what is known of it.
func lookup(ctx context.Context, c *client.Client, ref string) (box client.Container, err error) {
	err = byID(ctx, c, ref, func(id string) error {
		box, err = get(ctx, c, id)
		return err
	})
	return box, err
}

// get is lookup by the whole id.
func get(ctx context.Context, c *client.Client, id string) (client.Container, error) {
	found, err := c.List(ctx, client.ListRequest{All: true, Filters: []string{`id==` + quote(id)}})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound)
	}
	if err != nil {
		return client.Container{}, err
	}
	return found[0], nil
}

// explain says of a call that wants a container to run that it has ended, where that is why the call failed
// with err.
func explain(ctx context.Context, c *client.Client, id string, err error) error {
	if !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
		return err
	}
	box, lerr := get(ctx, c, id)
	if lerr != nil || box.Status != "stopped" {
		return err
	}
	return hinted(fmt.Errorf("container %s does not run: it has ended with code %d: %w", id, box.ExitStatus, errdefs.ErrFailedPrecondition),
		"cleat inspect "+id+" shows what is known of it, cleat rm "+id+" removes it")
}

// quote makes a value of the filter syntax that cannot say anything else.
func quote(s string) string { return fmt.Sprintf("%q", s) }

// withContainer runs f with a connection and the container that ref names.
func (a *app) withContainer(ctx context.Context, ref string, f func(*client.Client, client.Container) error) error {
	return a.withClient(ctx, func(c *client.Client) error {
		box, err := lookup(ctx, c, ref)
		if err != nil {
			return err
		}
		return f(c, box)
	})
}

// forEach does something to each container named, at the same time, and prints the names of those
// where it worked. Every error is reported.
func (a *app) forEach(ctx context.Context, refs []string, f func(ctx context.Context, c *client.Client, id string) error) error {
	return a.withClient(ctx, func(c *client.Client) error {
		results := make([]chan error, len(refs))
		for i, ref := range refs {
			results[i] = make(chan error, 1)
			go func() {
				results[i] <- byID(ctx, c, ref, func(id string) error { return f(ctx, c, id) })
			}()
		}
		var unread error // which ends none of what is under way
		err := a.inTurn(len(refs), func(i int) error {
			err := <-results[i]
			if err == nil && unread == nil {
				unread = writeLines(a.stdout, []string{refs[i]})
			}
			return err
		})
		return firstError(unread, err)
	})
}

// inTurn calls f for each of n things. An error is reported and does not keep f from the others, but for an
// exitCode, which is returned at once.
func (a *app) inTurn(n int, f func(i int) error) error {
	failed := false
	for i := range n {
		err := f(i)
		if err == nil {
			continue
		}
		if isExit(err) {
			return err
		}
		failed = true
		a.fail(err, 1)
	}
	if failed {
		return exitCode(1)
	}
	return nil
}
