package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/client"
)

// shortest is the minimum length of the short form of a generated id.
const shortest = 3

// byID calls f with ref as the id of a container. If no such container exists, it calls f with the generated id that
// starts with ref.
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
	return fmt.Errorf("container %s: ambiguous id, %d containers match: %w", ref, len(found), errdefs.ErrInvalidArgument)
}

// lookup returns the container that ref names.
func lookup(ctx context.Context, c *client.Client, ref string) (box client.Container, err error) {
	err = byID(ctx, c, ref, func(id string) error {
		box, err = get(ctx, c, id)
		return err
	})
	return box, err
}

// get returns the container with an id.
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

// explain replaces err, of a call on a running container, by an error that names the exit code if the container has
// stopped.
func explain(ctx context.Context, c *client.Client, id string, err error) error {
	if !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
		return err
	}
	box, lerr := get(ctx, c, id)
	if lerr != nil || box.Status != "stopped" {
		return err
	}
	return hinted(fmt.Errorf("container %s is not running: exited with code %d: %w", id, box.ExitStatus, errdefs.ErrFailedPrecondition),
		"cleat inspect "+id+" shows the details, cleat rm "+id+" removes the container")
}

// quote quotes a value for the filter syntax.
func quote(s string) string { return fmt.Sprintf("%q", s) }

// withContainer calls f with a connection and the container that ref names.
func (a *app) withContainer(ctx context.Context, ref string, f func(*client.Client, client.Container) error) error {
	return a.withClient(ctx, func(c *client.Client) error {
		box, err := lookup(ctx, c, ref)
		if err != nil {
			return err
		}
		return f(c, box)
	})
}

// forEach calls f for each of the named containers in parallel, and prints the names of those where f succeeded. Every
// error is reported.
func (a *app) forEach(ctx context.Context, refs []string, f func(ctx context.Context, c *client.Client, id string) error) error {
	return a.withClient(ctx, func(c *client.Client) error {
		results := make([]chan error, len(refs))
		for i, ref := range refs {
			results[i] = make(chan error, 1)
			go func() {
				results[i] <- byID(ctx, c, ref, func(id string) error { return f(ctx, c, id) })
			}()
		}
		var unread error // the other calls continue
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

// inTurn calls f for each index below n. An error is reported and does not stop the iteration, except for an exitCode,
// which is returned at once.
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
