package shim

import (
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/types"
)

// The life of a process, the init as well as an exec'd one. No I/O happens in this file: step
// returns the next state and what has to be published, and the callers (create.go, start.go,
// control.go, exit.go, delete.go) do it.
//
//	            created          start           started
//	creating ----------> created ------> starting ------> running
//	(init only)             |  ^           |              |     ^ resumed
//	                        |  |startFailed|        pause |     | pauseFailed
//	                        |  +-----------+              v     |
//	                        |                          pausing -+
//	                        |                       paused |
//	                        |                              v
//	                 exited |         exited            paused
//	                        v                              |
//	    delete   stopped <---------------------------------+
//	deleted <------+
//
// An exit that arrives in creating or starting is held by the caller and delivered again once the
// process has left that state, so that create and start are always published before exit. An exec'd
// process begins in created.
type state uint8

const (
	creating state = iota
	created
	starting
	running
	pausing
	paused
	stopped
	deleted
	numStates
)

type event uint8

const (
	evCreated event = iota
	evStart
	evStarted
	evStartFailed
	evPause
	evPaused
	evPauseFailed
	evResumed
	evExited
	evDelete
	numEvents
)

// effect is the action that a step requires of its caller.
type effect uint8

const (
	none effect = iota
	hold        // keep the exit and deliver it again later
	publishCreate
	publishStart
	publishPaused
	publishResumed
	publishExit
	publishDelete
)

type cell struct {
	next   state
	effect effect
	ok     bool
}

// step returns the state after e in s and the required effect. An event that is invalid in s is
// errdefs.ErrFailedPrecondition, or ErrNotFound once deleted.
func step(s state, e event) (state, effect, error) {
	table := [numStates][numEvents]cell{
		creating: {
			evCreated: {created, publishCreate, true},
			evExited:  {creating, hold, true},
		},
		created: {
			evStart:  {starting, none, true},
			evExited: {stopped, publishExit, true},
			evDelete: {deleted, publishDelete, true},
		},
		starting: {
			evStarted:     {running, publishStart, true},
			evStartFailed: {created, none, true},
			evExited:      {starting, hold, true},
		},
		running: {
			evPause:   {pausing, none, true},
			evResumed: {running, none, true},
			evExited:  {stopped, publishExit, true},
		},
		pausing: {
			evPaused:      {paused, publishPaused, true},
			evPauseFailed: {running, none, true},
			evExited:      {stopped, publishExit, true},
		},
		paused: {
			evResumed: {running, publishResumed, true},
			evExited:  {stopped, publishExit, true},
		},
		stopped: {
			// The exit overtook the answer of the runtime.
			evPaused:      {stopped, none, true},
			evPauseFailed: {stopped, none, true},
			evResumed:     {stopped, none, true},
			evDelete:      {deleted, publishDelete, true},
		},
	}
	if s >= numStates || e >= numEvents {
		return s, none, fmt.Errorf("event %d in state %d: %w", e, s, errdefs.ErrInternal)
	}
	c := table[s][e]
	if c.ok {
		return c.next, c.effect, nil
	}
	if s == deleted {
		return s, none, fmt.Errorf("%s: process is deleted: %w", e, errdefs.ErrNotFound)
	}
	return s, none, fmt.Errorf("%s: process is %s: %w", e, s, errdefs.ErrFailedPrecondition)
}

func (s state) String() string {
	return [...]string{"being created", "created", "starting", "running", "pausing", "paused", "stopped", "deleted", "?"}[min(s, numStates)]
}

func (e event) String() string {
	return [...]string{
		"create", "start", "start", "start", "pause", "pause", "pause", "resume", "exit", "delete", "?",
	}[min(e, numEvents)]
}

// status is the state in the task API.
func (s state) status() types.Status {
	switch s {
	case created, starting:
		return types.Status_CREATED
	case running:
		return types.Status_RUNNING
	case pausing:
		return types.Status_PAUSING
	case paused:
		return types.Status_PAUSED
	case stopped, deleted:
		return types.Status_STOPPED
	default:
		return types.Status_UNKNOWN
	}
}
