package shim

import (
	"testing"

	"github.com/containerd/errdefs"
)

// Every path through the table, to a depth beyond its longest: events are published once and in
// order, and no path leaves deleted.
func TestLifecycle_PublishesInOrder(t *testing.T) {
	rank := map[effect]int{publishCreate: 1, publishStart: 2, publishExit: 3, publishDelete: 4}
	var walk func(s state, published, depth int)
	walk = func(s state, published, depth int) {
		if depth == 0 {
			return
		}
		for e := range numEvents {
			next, eff, err := step(s, e)
			if err != nil {
				if next != s || eff != none {
					t.Errorf("%s in %s: refused, but went to %s", e, s, next)
				}
				if s == deleted && !errdefs.IsNotFound(err) || s != deleted && !errdefs.IsFailedPrecondition(err) {
					t.Errorf("%s in %s: %v", e, s, err)
				}
				continue
			}
			now := published
			if r, ok := rank[eff]; ok {
				if r <= published {
					t.Errorf("%s in %s publishes %d after %d", e, s, r, published)
				}
				now = r
			}
			if eff == publishExit && e != evExited || next == stopped && s != stopped && eff != publishExit {
				t.Errorf("%s in %s: stops without publishing", e, s)
			}
			walk(next, now, depth-1)
		}
	}
	walk(creating, 0, 7)
	walk(created, 1, 7)
}

func TestLifecycle_AcceptsExitWhileAlive(t *testing.T) {
	for s := range numStates {
		_, eff, err := step(s, evExited)
		alive := s != stopped && s != deleted
		if alive && (err != nil || eff != hold && eff != publishExit) {
			t.Errorf("exit in %s: %v, %v", s, eff, err)
		}
		if !alive && err == nil {
			t.Errorf("a second exit in %s", s)
		}
	}
	if _, _, err := step(numStates, evExited); !errdefs.IsInternal(err) {
		t.Errorf("unknown state: %v", err)
	}
}
