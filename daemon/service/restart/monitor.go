// Package restart starts and stops containers as the published labels containerd.io/restart.* ask.
package restart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/cleatproject/cleat/daemon/service/containers"
	"github.com/cleatproject/cleat/daemon/service/subscribe"
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

// Monitor starts and stops containers as their labels ask (policy.go). It acts on events, and at the
// daemon's start on the containers it finds. The states belong to one goroutine.
type Monitor struct {
	cfg    Config
	cancel context.CancelFunc
	wg     sync.WaitGroup

	states map[restartKey]*restartState
	news   chan events.Event
	found  chan restartKey // ended, or without a task, at the daemon's start
	done   chan restartDone
}

// Config is what a Monitor works with; all fields are required.
type Config struct {
	DB         *metadata.DB
	Events     *events.Log
	Tasks      *runtime.Manager
	Hub        *subscribe.Hub
	Containers *containers.Service
	Log        *slog.Logger
}

// Start begins to monitor the containers of every namespace. Close the monitor before what it works with.
//
//nolint:contextcheck // Close ends the goroutines
func Start(cfg Config) *Monitor {
	ctx, cancel := context.WithCancel(context.Background())
	m := &Monitor{
		cfg: cfg, cancel: cancel, states: make(map[restartKey]*restartState),
		news: make(chan events.Event), found: make(chan restartKey), done: make(chan restartDone),
	}
	m.wg.Go(func() { m.run(ctx) })
	return m
}

// Close ends the monitor's goroutines and waits for them. Containers are left alone.
func (m *Monitor) Close() {
	m.cancel()
	m.wg.Wait()
}

// run acts until ctx ends.
func (m *Monitor) run(ctx context.Context) {
	m.wg.Go(func() { m.listen(ctx) })
	m.wg.Go(func() {
		if err := m.find(ctx); err != nil && ctx.Err() == nil {
			m.cfg.Log.Error("cannot list containers to restart", "error", err)
		}
	})
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-m.news:
			m.note(e)
		case k := <-m.found:
			m.schedule(k, 0)
		case d := <-m.done:
			m.finished(d)
		case <-timer.C:
		}
		m.begin(ctx, time.Now())
		timer.Reset(m.next(time.Now()))
	}
}

// listen hands on the events that matter.
func (m *Monitor) listen(ctx context.Context) {
	filters := []string{"topic==/tasks/exit", "topic==/containers/create", "topic==/containers/update", "topic==/containers/delete"}
	for ctx.Err() == nil {
		err := m.cfg.Hub.Subscribe(ctx, subscribe.Subscription{Cursor: m.cfg.Events.Cursor(), Filters: filters}, func(e events.Event) error {
			select {
			case m.news <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if !errors.Is(err, errdefs.ErrOutOfRange) {
			return // the service or the monitor closes
		}
		if err := m.find(ctx); err != nil && ctx.Err() == nil {
			m.cfg.Log.Error("cannot list containers to restart", "error", err)
		}
	}
}

// find looks at every container that asks for something.
func (m *Monitor) find(ctx context.Context) error {
	namespaces, err := m.cfg.DB.NamespaceNames(ctx)
	if err != nil {
		return err
	}
	for _, ns := range namespaces {
		var list []metadata.Container
		err := m.cfg.DB.View(ctx, func(tx *metadata.Tx) (err error) {
			list, err = tx.Containers(ns).List(fmt.Sprintf("labels.%q", labelRestartStatus))
			return err
		})
		if err != nil {
			return err
		}
		for _, c := range list {
			m.wg.Go(func() { m.await(ctx, restartKey{ns, c.ID}) })
		}
	}
	return nil
}

// await reports a container once it is known not to run: its shim may not have reported it yet.
func (m *Monitor) await(ctx context.Context, k restartKey) {
	if t, err := m.cfg.Tasks.Get(k.namespace, k.id); err == nil && t.Info().Status == types.Status_UNKNOWN {
		select {
		case <-t.Exited():
		case <-ctx.Done():
			return
		}
	}
	select {
	case m.found <- k:
	case <-ctx.Done():
	}
}

// note schedules a check of the container that an event reports.
func (m *Monitor) note(e events.Event) {
	switch e.Topic {
	case "/tasks/exit":
		var msg apievents.TaskExit
		if proto.Unmarshal(e.Value, &msg) != nil || msg.GetID() != msg.GetContainerID() {
			return
		}
		k := restartKey{e.Namespace, msg.GetContainerID()}
		st := m.states[k]
		if st == nil {
			m.schedule(k, firstRestart)
			return
		}
		st.wait = nextRestart(st.wait, time.Since(st.started))
		m.schedule(k, st.wait)
	case "/containers/create":
		var msg apievents.ContainerCreate
		if proto.Unmarshal(e.Value, &msg) == nil {
			m.schedule(restartKey{e.Namespace, msg.GetID()}, settleTime)
		}
	case "/containers/update":
		var msg apievents.ContainerUpdate
		if proto.Unmarshal(e.Value, &msg) == nil && msg.GetLabels()[labelRestartStatus] != "" {
			m.schedule(restartKey{e.Namespace, msg.GetID()}, settleTime)
		}
	case "/containers/delete":
		var msg apievents.ContainerDelete
		if k := (restartKey{e.Namespace, msg.GetID()}); proto.Unmarshal(e.Value, &msg) == nil && m.states[k] != nil && !m.states[k].busy {
			delete(m.states, k)
		}
	}
}

// schedule has a container looked at after a while, unless that is due sooner.
func (m *Monitor) schedule(k restartKey, after time.Duration) {
	st := m.states[k]
	if st == nil {
		st = &restartState{}
		m.states[k] = st
	}
	if at := time.Now().Add(after); st.due.IsZero() || at.Before(st.due) {
		st.due = at
	}
}

// begin starts the checks that are due.
func (m *Monitor) begin(ctx context.Context, now time.Time) {
	for k, st := range m.states {
		if st.busy || st.due.IsZero() || st.due.After(now) {
			continue
		}
		st.busy, st.due = true, time.Time{}
		failed := st.failed
		m.wg.Go(func() {
			started, err := m.restart(ctx, k.namespace, k.id, failed)
			if err != nil && ctx.Err() == nil {
				m.cfg.Log.Error("cannot do what a container's restart labels ask for", "id", k.id, "namespace", k.namespace, "error", err)
			}
			select {
			case m.done <- restartDone{key: k, started: started, retry: err != nil && !errors.Is(err, errdefs.ErrInvalidArgument)}:
			case <-ctx.Done():
			}
		})
	}
}

// finished takes the report of a check. What needs no attention is forgotten.
func (m *Monitor) finished(d restartDone) {
	st := m.states[d.key]
	st.busy, st.failed = false, d.retry
	switch {
	case d.started:
		st.started = time.Now()
		return
	case d.retry:
		m.schedule(d.key, lastRestart)
	}
	if st.due.IsZero() {
		delete(m.states, d.key)
	}
}

// next is how long until the next check is due.
func (m *Monitor) next(now time.Time) time.Duration {
	wait := time.Hour
	for _, st := range m.states {
		if !st.busy && !st.due.IsZero() {
			wait = min(wait, max(0, st.due.Sub(now)))
		}
	}
	return wait
}

// restart looks at a container and does what its labels ask for; it reports whether it was started.
// failed says that the last attempt took its task away and could not make another, which counts as an
// end of the container. Containers of Run have a life of their own (daemon/service/containers/finish.go) and are left alone.
func (m *Monitor) restart(ctx context.Context, namespace, id string, failed bool) (bool, error) {
	c, err := m.cfg.Containers.Get(ctx, namespace, id)
	if err != nil {
		return false, undo.Ignore(err, errdefs.ErrNotFound)
	}
	if containers.Managed(c) {
		return false, nil
	}
	t, err := m.cfg.Tasks.Get(namespace, id)
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return false, err
	}
	now := taskNow{ended: failed, status: containers.UnknownExit}
	if t != nil {
		info := t.Info()
		now = taskNow{exists: true, ended: info.Status == types.Status_STOPPED, status: info.Exit.Status}
	}
	action, err := decideRestart(c.Labels, now)
	switch {
	case err != nil || action == restartNothing:
		return false, err
	case action == restartStop:
		return false, m.cfg.Containers.KillAndDelete(ctx, t)
	}
	if t != nil {
		if err := undo.Ignore(m.cfg.Containers.DeleteStopped(ctx, t), errdefs.ErrNotFound); err != nil {
			return false, err
		}
	}
	err = m.startAgain(ctx, namespace, c)
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return false, nil // a client was faster
	}
	return err == nil, err
}

// startAgain counts the restart and makes a new task.
func (m *Monitor) startAgain(ctx context.Context, namespace string, c metadata.Container) error {
	count, err := restartNumber(labelRestartCount, c.Labels[labelRestartCount])
	if err != nil {
		return err
	}
	update := metadata.Container{ID: c.ID, Labels: map[string]string{labelRestartCount: strconv.Itoa(count + 1)}}
	if _, err := m.cfg.Containers.Update(ctx, namespace, update, []string{"labels." + labelRestartCount}); err != nil {
		return err
	}
	log := c.Labels[labelRestartLog]
	terminal, err := wantsTerminal(c)
	if err != nil {
		return err
	}
	req := containers.TaskRequest{Launch: runtime.LaunchOptions{ID: c.ID}, Create: runtime.CreateOptions{Stdout: log, Terminal: terminal}}
	if !terminal {
		req.Create.Stderr = log
	}
	t, err := m.cfg.Containers.CreateTask(ctx, namespace, req)
	if err != nil {
		return err
	}
	if _, err := t.Start(ctx); err != nil {
		return errors.Join(fmt.Errorf("restart %s: %w", c.ID, err), t.Abandon(context.WithoutCancel(ctx)))
	}
	m.cfg.Log.Info("restarted a container", "id", c.ID, "namespace", namespace, "count", count+1)
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
