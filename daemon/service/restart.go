package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/runtime"
)

// restartKey names a container.
type restartKey struct{ namespace, id string }

// restartDone is the report of a check.
type restartDone struct {
	key            restartKey
	started, retry bool
}

// restartState is what the monitor remembers of a container.
type restartState struct {
	due     time.Time // of the next check; zero for none
	busy    bool      // a check is under way
	failed  bool      // the last one could not start it
	wait    time.Duration
	started time.Time
}

// restarts starts and stops containers as their labels ask (restartpolicy.go). It acts upon events,
// and at the daemon's start upon what it finds; only its own goroutine touches the states.
type restarts struct {
	s      *Service
	states map[restartKey]*restartState
	news   chan events.Event
	found  chan restartKey // ended, or without a task, at the daemon's start
	done   chan restartDone
}

// monitorRestarts runs until the Service closes.
func (s *Service) monitorRestarts(ctx context.Context) {
	r := &restarts{
		s: s, states: make(map[restartKey]*restartState),
		news: make(chan events.Event), found: make(chan restartKey), done: make(chan restartDone),
	}
	s.wg.Go(func() { r.listen(ctx) })
	s.wg.Go(func() {
		if err := r.find(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("cannot look for containers to restart", "error", err)
		}
	})
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-r.news:
			r.note(e)
		case k := <-r.found:
			r.schedule(k, 0)
		case d := <-r.done:
			r.finished(d)
		case <-timer.C:
		}
		r.begin(ctx, time.Now())
		timer.Reset(r.next(time.Now()))
	}
}

// listen hands on the events that matter.
func (r *restarts) listen(ctx context.Context) {
	filters := []string{"topic==/tasks/exit", "topic==/containers/create", "topic==/containers/update", "topic==/containers/delete"}
	for ctx.Err() == nil {
		err := r.s.Subscribe(ctx, Subscription{Cursor: r.s.Events.Cursor(), Filters: filters}, func(e events.Event) error {
			select {
			case r.news <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if !errors.Is(err, errdefs.ErrOutOfRange) {
			return // the Service closes
		}
		if err := r.find(ctx); err != nil && ctx.Err() == nil {
			r.s.Log.Error("cannot look for containers to restart", "error", err)
		}
	}
}

// find looks at every container that asks for something.
func (r *restarts) find(ctx context.Context) error {
	namespaces, err := r.s.namespaces(ctx)
	if err != nil {
		return err
	}
	for _, ns := range namespaces {
		var list []metadata.Container
		err := r.s.DB.View(ctx, func(tx *metadata.Tx) (err error) {
			list, err = tx.Containers(ns).List(fmt.Sprintf("labels.%q", labelRestartStatus))
			return err
		})
		if err != nil {
			return err
		}
		for _, c := range list {
			r.s.wg.Go(func() { r.await(ctx, restartKey{ns, c.ID}) })
		}
	}
	return nil
}

// await reports a container once it is known not to run: its shim may not have told yet.
func (r *restarts) await(ctx context.Context, k restartKey) {
	if t, err := r.s.Runtime.Get(k.namespace, k.id); err == nil && t.Info().Status == types.Status_UNKNOWN {
		select {
		case <-t.Exited():
		case <-ctx.Done():
			return
		}
	}
	select {
	case r.found <- k:
	case <-ctx.Done():
	}
}

// note schedules a check for what an event tells.
func (r *restarts) note(e events.Event) {
	switch e.Topic {
	case "/tasks/exit":
		var m apievents.TaskExit
		if proto.Unmarshal(e.Value, &m) != nil || m.GetID() != m.GetContainerID() {
			return
		}
		k := restartKey{e.Namespace, m.GetContainerID()}
		st := r.states[k]
		if st == nil {
			r.schedule(k, firstRestart)
			return
		}
		st.wait = nextRestart(st.wait, time.Since(st.started))
		r.schedule(k, st.wait)
	case "/containers/create":
		var m apievents.ContainerCreate
		if proto.Unmarshal(e.Value, &m) == nil {
			r.schedule(restartKey{e.Namespace, m.GetID()}, settleTime)
		}
	case "/containers/update":
		var m apievents.ContainerUpdate
		if proto.Unmarshal(e.Value, &m) == nil && m.GetLabels()[labelRestartStatus] != "" {
			r.schedule(restartKey{e.Namespace, m.GetID()}, settleTime)
		}
	case "/containers/delete":
		var m apievents.ContainerDelete
		if k := (restartKey{e.Namespace, m.GetID()}); proto.Unmarshal(e.Value, &m) == nil && r.states[k] != nil && !r.states[k].busy {
			delete(r.states, k)
		}
	}
}

// schedule has a container looked at after a while, unless that is due sooner.
func (r *restarts) schedule(k restartKey, after time.Duration) {
	st := r.states[k]
	if st == nil {
		st = &restartState{}
		r.states[k] = st
	}
	if at := time.Now().Add(after); st.due.IsZero() || at.Before(st.due) {
		st.due = at
	}
}

// begin starts the checks that are due.
func (r *restarts) begin(ctx context.Context, now time.Time) {
	for k, st := range r.states {
		if st.busy || st.due.IsZero() || st.due.After(now) {
			continue
		}
		st.busy, st.due = true, time.Time{}
		failed := st.failed
		r.s.wg.Go(func() {
			started, err := r.s.restart(ctx, k.namespace, k.id, failed)
			if err != nil && ctx.Err() == nil {
				r.s.Log.Error("cannot do what a container's restart labels ask for", "id", k.id, "namespace", k.namespace, "error", err)
			}
			select {
			case r.done <- restartDone{key: k, started: started, retry: err != nil && !errors.Is(err, errdefs.ErrInvalidArgument)}:
			case <-ctx.Done():
			}
		})
	}
}

// finished takes the report of a check. What needs no attention is forgotten.
func (r *restarts) finished(d restartDone) {
	st := r.states[d.key]
	st.busy, st.failed = false, d.retry
	switch {
	case d.started:
		st.started = time.Now()
		return
	case d.retry:
		r.schedule(d.key, lastRestart)
	}
	if st.due.IsZero() {
		delete(r.states, d.key)
	}
}

// next is how long until the next check is due.
func (r *restarts) next(now time.Time) time.Duration {
	wait := time.Hour
	for _, st := range r.states {
		if !st.busy && !st.due.IsZero() {
			wait = min(wait, max(0, st.due.Sub(now)))
		}
	}
	return wait
}

// restart looks at a container and does what its labels ask for; it reports whether it was started.
// failed says that the last attempt took its task away and could not make another, which counts as an
// end of the container. Containers of Run have a life of their own (finish.go) and are left alone.
func (s *Service) restart(ctx context.Context, namespace, id string, failed bool) (bool, error) {
	c, err := s.container(ctx, namespace, id)
	if err != nil {
		return false, undo.Ignore(err, errdefs.ErrNotFound)
	}
	if _, ran := c.Extensions[recordName]; ran {
		return false, nil
	}
	t, err := s.Runtime.Get(namespace, id)
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return false, err
	}
	now := taskNow{ended: failed, status: unknownExit}
	if t != nil {
		info := t.Info()
		now = taskNow{exists: true, ended: info.Status == types.Status_STOPPED, status: info.Exit.Status}
	}
	action, err := decideRestart(c.Labels, now)
	switch {
	case err != nil || action == restartNothing:
		return false, err
	case action == restartStop:
		return false, s.kill(ctx, t)
	}
	if t != nil {
		if err := undo.Ignore(s.deleteTask(ctx, t), errdefs.ErrNotFound); err != nil {
			return false, err
		}
	}
	err = s.startAgain(ctx, namespace, c)
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return false, nil // a client was faster
	}
	return err == nil, err
}

// startAgain counts the restart and makes a new task.
func (s *Service) startAgain(ctx context.Context, namespace string, c metadata.Container) error {
	count, err := restartNumber(labelRestartCount, c.Labels[labelRestartCount])
	if err != nil {
		return err
	}
	update := metadata.Container{ID: c.ID, Labels: map[string]string{labelRestartCount: strconv.Itoa(count + 1)}}
	if _, err := s.UpdateContainer(ctx, namespace, update, []string{"labels." + labelRestartCount}); err != nil {
		return err
	}
	log := c.Labels[labelRestartLog]
	terminal, err := wantsTerminal(c)
	if err != nil {
		return err
	}
	req := TaskRequest{Launch: runtime.LaunchOptions{ID: c.ID}, Create: runtime.CreateOptions{Stdout: log, Terminal: terminal}}
	if !terminal {
		req.Create.Stderr = log
	}
	t, err := s.CreateTask(ctx, namespace, req)
	if err != nil {
		return err
	}
	if _, err := t.Start(ctx); err != nil {
		return errors.Join(fmt.Errorf("restart %s: %w", c.ID, err), t.Abandon(context.WithoutCancel(ctx)))
	}
	s.Log.Info("restarted a container", "id", c.ID, "namespace", namespace, "count", count+1)
	return nil
}

// wantsTerminal reads it from a container's spec.
func wantsTerminal(c metadata.Container) (bool, error) {
	var spec struct {
		Process struct {
			Terminal bool `json:"terminal"`
		} `json:"process"`
	}
	if c.Spec == nil {
		return false, nil // CreateTask says what is wrong with that
	}
	if err := json.Unmarshal(c.Spec.Value, &spec); err != nil {
		return false, fmt.Errorf("spec of container %s: %w: %w", c.ID, err, errdefs.ErrInvalidArgument)
	}
	return spec.Process.Terminal, nil
}
