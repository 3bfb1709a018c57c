package runtime

import (
	"testing"
)

// TestStep_EachCell compares the table with its description: the next phase and what is published.
func TestStep_EachCell(t *testing.T) {
	const (
		unrep, rep, exit, del = unreported, reported, exitReported, deleteReported
		both                  = publishExit | publishDelete
	)
	for p, row := range [numPhases][numHappenings]struct {
		next phase
		do   effects
	}{
		//      created    committed  exited               shim died            shim empty deleted   removed
		unrep: {{rep, 0}, {rep, 0}, {exit, publishExit}, {unrep, 0}, {del, 0}, {del, 0}, {unrep, 0}},
		rep:   {{rep, 0}, {rep, 0}, {exit, publishExit}, {exit, publishExit}, {del, 0}, {del, 0}, {del, both}},
		exit:  {{exit, 0}, {exit, 0}, {exit, 0}, {exit, 0}, {del, 0}, {del, 0}, {del, publishDelete}},
		del:   {{del, 0}, {del, 0}, {del, 0}, {del, 0}, {del, 0}, {del, 0}, {del, 0}},
	} {
		for h, want := range row {
			next, do := step(phase(p), happening(h))
			if next != want.next || do != want.do {
				t.Errorf("%s, %d: %s with effects %b, want %s with %b", phase(p), h, next, do, want.next, want.do)
			}
		}
	}
}

// TestStep_AnySequence_PublishesEachOnce walks all sequences of happenings: no phase goes back, exit comes before
// deletion, and neither is published twice.
func TestStep_AnySequence_PublishesEachOnce(t *testing.T) {
	const length = 6
	var walk func(p phase, published effects, left int)
	walk = func(p phase, published effects, left int) {
		if left == 0 {
			return
		}
		for h := range numHappenings {
			next, do := step(p, h)
			if next < p {
				t.Errorf("%s goes back to %s", p, next)
			}
			if do&published != 0 {
				t.Errorf("%s, %d publishes %b again", p, h, do&published)
			}
			if do&publishDelete != 0 && (published|do)&publishExit == 0 && p != exitReported {
				t.Errorf("%s, %d publishes a deletion before the exit", p, h)
			}
			walk(next, published|do, left-1)
		}
	}
	walk(unreported, 0, length)
}
