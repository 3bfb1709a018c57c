package client

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/proto/types"
)

// Exit is the exit of a process.
type Exit struct {
	// Status is the exit code, or 128 and the number of the signal that ended it.
	Status uint32
	At     time.Time
}

// Back-off between attempts to reach a daemon that does not run, and how long the event log is
// searched for an exit that must already be in it.
const (
	firstRetry   = 5 * time.Millisecond
	longestRetry = 500 * time.Millisecond
	searchTime   = 5 * time.Second
)

// Wait returns when the container's init has exited, at once if it already has. It survives
// restarts of the daemon. If the container is removed during the call, its exit is looked up in the event
// log from cursor, as Run returned it; with cursor 0 that is errdefs.ErrNotFound.
func (c *Client) Wait(ctx context.Context, id string, cursor uint64) (Exit, error) {
	var exit Exit
	err := c.persist(ctx, func() error {
		resp, err := call[cleatapi.WaitResponse](ctx, c, cleatapi.ContainersService, "Wait", &cleatapi.WaitRequest{Id: id})
		if err == nil {
			exit = Exit{Status: resp.ExitStatus, At: resp.ExitedAt.Time()}
		}
		return err
	})
	if errdefs.IsNotFound(err) && cursor != 0 {
		if found, ferr := c.exitSince(ctx, id, cursor); ferr == nil {
			return found, nil
		}
	}
	return exit, about("wait for container", id, err)
}

// persist repeats f, with growing delays, as long as the daemon cannot be reached and ctx
// lasts.
func (c *Client) persist(ctx context.Context, f func() error) error {
	for pause := firstRetry; ; pause = min(2*pause, longestRetry) {
		began := time.Now()
		err := f()
		if time.Since(began) > longestRetry {
			pause = firstRetry // it was reached in between
		}
		if !errdefs.IsUnavailable(err) || ctx.Err() != nil || c.conns.isClosed() {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

// exitSince returns the exit of a container's init from the event log after cursor.
func (c *Client) exitSince(ctx context.Context, id string, cursor uint64) (Exit, error) {
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	for e, err := range c.Events(ctx, EventsRequest{Cursor: cursor, Filters: []string{`topic=="` + TopicExit + `"`}}) {
		if err != nil {
			return Exit{}, err
		}
		if x, ok := e.exitOf(id); ok {
			return x, nil
		}
	}
	return Exit{}, fmt.Errorf("find exit of %s in the event log: %w", id, errdefs.ErrNotFound)
}

// exitOf reads the event as the exit of container id's init.
func (e Event) exitOf(id string) (Exit, bool) {
	if e.Topic != TopicExit {
		return Exit{}, false
	}
	var m events.TaskExit
	if m.Unmarshal(e.Value) != nil || m.ContainerId != id || m.Id != id {
		return Exit{}, false
	}
	return exitFrom(m.ExitStatus, m.ExitedAt), true
}

func exitFrom(status uint32, at *types.Timestamp) Exit { return Exit{Status: status, At: at.Time()} }
