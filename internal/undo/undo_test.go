package undo

import (
	"errors"
	"slices"
	"testing"
)

func TestRun_UndoesInReverseAndContinues(t *testing.T) {
	var u Stack
	var order []int
	boom := errors.New("boom")
	for i := range 4 {
		u.Push("step", func() error {
			order = append(order, i)
			if i%2 == 1 {
				return boom
			}
			return nil
		})
	}
	if err := u.Run(); !errors.Is(err, boom) {
		t.Errorf("got %v, want boom", err)
	}
	if !slices.Equal(order, []int{3, 2, 1, 0}) {
		t.Errorf("order %v", order)
	}
	if err := u.Run(); err != nil || len(order) != 4 {
		t.Errorf("a second run did something: %v %v", err, order)
	}
}

func TestRelease(t *testing.T) {
	var u Stack
	u.Push("never", func() error { t.Error("ran after release"); return nil })
	u.Release()
	if err := u.Run(); err != nil {
		t.Error(err)
	}
}
