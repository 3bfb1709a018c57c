package keylock_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/cleatproject/cleat/internal/keylock"
)

func TestLock_ExcludesByName(t *testing.T) {
	var locks keylock.Locks[string]
	var wg sync.WaitGroup
	counts := map[string]*int{"a": new(int), "b": new(int)}
	for name, n := range counts {
		for range 50 {
			wg.Go(func() {
				unlock, err := locks.Lock(t.Context(), name)
				if err != nil {
					t.Error(err)
					return
				}
				defer unlock()
				*n++ // the race detector reports two at the same time
			})
		}
	}
	wg.Wait()
	if *counts["a"] != 50 || *counts["b"] != 50 {
		t.Errorf("counted %d and %d", *counts["a"], *counts["b"])
	}
}

func TestLock_EndsWithContext(t *testing.T) {
	var locks keylock.Locks[int]
	unlock, err := locks.Lock(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := locks.Lock(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("a lock that is held, after the context's end: %v", err)
	}
	other, err := locks.Lock(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	other()
	unlock()
	if unlock, err = locks.Lock(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	unlock()
}
