package shim

import (
	"testing"

	"github.com/containerd/errdefs"
)

// Every path through the table, to a depth beyond its longest: what is told is told once and in
// order, and nothing leads out of deleted.
func TestEveryPathTellsInOrder(t *testing.T) {
	rank := map[effect]int{tellCreate: 1, tellStart: 2, tellExit: 3, tellDelete: 4}
	var walk func(s state, told, depth int)
	walk = func(s state, told, depth int) {
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
			now := told
			if r, ok := rank[eff]; ok {
				if r <= told {
					t.Errorf("%s in %s tells %d after %d", e, s, r, told)
				}
				now = r
			}
			if eff == tellExit && e != evExited || next == stopped && s != stopped && eff != tellExit {
				t.Errorf("%s in %s: stops without telling", e, s)
			}
			walk(next, now, depth-1)
		}
	}
	walk(creating, 0, 7)
	walk(created, 1, 7)
}

func TestExitIsNeverRefusedWhileAlive(t *testing.T) {
	for s := range numStates {
		_, eff, err := step(s, evExited)
		alive := s != stopped && s != deleted
		if alive && (err != nil || eff != hold && eff != tellExit) {
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
