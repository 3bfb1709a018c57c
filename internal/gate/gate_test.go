package gate

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func enter(t *testing.T, g *Gate) (leave func()) {
	t.Helper()
	leave, err := g.Enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return leave
}

func TestEnter_AdmitsUpToLimit(t *testing.T) {
	g := New("work", 3, 0)
	var now, most atomic.Int32
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			leave := enter(t, g)
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			now.Add(-1)
			leave()
		})
	}
	wg.Wait()
	if most.Load() > 3 || g.free != 3 || g.Waiting() != 0 {
		t.Fatalf("%d at a time, %d free, %d waiting", most.Load(), g.free, g.Waiting())
	}
}

func TestEnter_AdmitsInOrderOfCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New("work", 1, 0)
		leave := enter(t, g)
		var order []int
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				l := enter(t, g)
				order = append(order, i) // one at a time
				l()
			})
			synctest.Wait()
		}
		leave()
		wg.Wait()
		for i, n := range order {
			if i != n {
				t.Fatalf("order %v", order)
			}
		}
	})
}

func TestEnter_EndsWithContext_LosesNoPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New("work", 1, 0)
		leave := enter(t, g)
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			_, err := g.Enter(ctx)
			gone <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) || g.Waiting() != 0 {
			t.Fatalf("%v, %d waiting", err, g.Waiting())
		}
		leave()
		leave() // once is enough
		if g.free != 1 {
			t.Fatalf("%d free", g.free)
		}
	})
}

func TestPass_ExpiresWithLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New("work", 1, time.Minute)
		stuck := enter(t, g)
		began := time.Now()
		leave := enter(t, g)
		if waited := time.Since(began); waited != time.Minute {
			t.Fatalf("admitted after %v", waited)
		}
		stuck() // late, and without effect
		leave()
		if g.free != 1 {
			t.Fatalf("%d free", g.free)
		}
	})
}
