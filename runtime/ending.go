package runtime

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// The end of a task as subscribers to its events see it. No I/O happens in this file: step returns
// the next phase and the events to publish, and report.go publishes them.
//
//	            created,               exited,                   deleted,
//	            committed              shim died                 removed
//	unreported ----------> reported -------------> exitReported ---------> deleteReported
//
// Each event of a task is published once, by its shim or by the daemon in place of a dead shim,
// although shims and daemons may die in any order. A task that no subscriber has been notified of
// ends without events. A phase never goes back.
type phase uint8

const (
	unreported     phase = iota // no event was published, and the request for the task was not answered
	reported                    // subscribers have been notified of the task, or its request was answered
	exitReported                // the exit was published
	deleteReported              // the deletion was published, or is about to be by the shim
	numPhases
)

// happening is what a phase changes by.
type happening uint8

const (
	evCreated   happening = iota // the shim reports that it has created the container
	evCommitted                  // the request that made the task is answered
	evExited                     // the shim, or the record that it left, reports the init's exit
	evShimDied                   // the shim died and its container was cleaned up
	evShimEmpty                  // the shim has no container any more: it has deleted it and reported that
	evDeleted                    // the shim has deleted the container and reports that
	evRemoved                    // the daemon removes the task without its shim
	numHappenings
)

// effects are the events that the daemon has to publish itself, in this order.
type effects uint8

const (
	publishExit effects = 1 << iota
	publishDelete
)

// step returns the phase after h in p and what to publish.
func step(p phase, h happening) (phase, effects) {
	type cell struct {
		next phase
		do   effects
	}
	table := [numPhases][numHappenings]cell{
		unreported: {
			evCreated:   {reported, 0},
			evCommitted: {reported, 0},
			evExited:    {exitReported, publishExit},
			evShimDied:  {unreported, 0},
			evShimEmpty: {deleteReported, 0},
			evDeleted:   {deleteReported, 0},
			evRemoved:   {unreported, 0},
		},
		reported: {
			evCreated:   {reported, 0},
			evCommitted: {reported, 0},
			evExited:    {exitReported, publishExit},
			evShimDied:  {exitReported, publishExit},
			evShimEmpty: {deleteReported, 0},
			evDeleted:   {deleteReported, 0},
			evRemoved:   {deleteReported, publishExit | publishDelete},
		},
		exitReported: {
			evCreated:   {exitReported, 0},
			evCommitted: {exitReported, 0},
			evExited:    {exitReported, 0},
			evShimDied:  {exitReported, 0},
			evShimEmpty: {deleteReported, 0},
			evDeleted:   {deleteReported, 0},
			evRemoved:   {deleteReported, publishDelete},
		},
		deleteReported: {
			evCreated:   {deleteReported, 0},
			evCommitted: {deleteReported, 0},
			evExited:    {deleteReported, 0},
			evShimDied:  {deleteReported, 0},
			evShimEmpty: {deleteReported, 0},
			evDeleted:   {deleteReported, 0},
			evRemoved:   {deleteReported, 0},
		},
	}
	c := table[p][h]
	return c.next, c.do
}

func (p phase) String() string {
	return [...]string{"unreported", "reported", "exit-reported", "delete-reported", "?"}[min(p, numPhases)]
}

// MarshalText implements encoding.TextMarshaler.
func (p phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *phase) UnmarshalText(text []byte) error {
	for q := range numPhases {
		if q.String() == string(text) {
			*p = q
			return nil
		}
	}
	return fmt.Errorf("phase %.40q: %w", text, errdefs.ErrInvalidArgument)
}
