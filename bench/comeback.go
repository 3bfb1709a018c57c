package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/cleatproject/cleat/client"
)

// comebackShims is the number of running containers when the daemon is restarted.
const comebackShims = 200

// comebackLimit bounds a measurement that does not succeed.
const comebackLimit = time.Minute

// comebackScenario kills a daemon with many containers and starts it again.
func comebackScenario() scenario {
	return scenario{
		name: "comeback", unit: "ms", rounds: 5,
		what: fmt.Sprintf("from the daemon's start, after kill -9 with %d containers running", comebackShims),
		targets: []target{
			{variant: "the API answers", limit: 300},
			{variant: "and the state of all is known", limit: 2000},
		},
		prepare: prepareComeback,
	}
}

func prepareComeback(ctx context.Context, e *environment) ([]variant, func() error, error) {
	ids := make([]string, comebackShims)
	for i := range ids {
		ids[i] = e.nextID("comeback")
	}
	cleanup := func() error {
		ctx := context.WithoutCancel(ctx)
		return together(ids, func(id string) error {
			err := e.runToEnd(ctx, e.cleatCommand("rm", "--force", id))
			return err
		})
	}
	err := together(ids, func(id string) error {
		_, err := e.timed(ctx, e.cleatCommand("run", "--detach", "--name", id, imageName, "/bin/sleep", "100000"))
		return err
	})
	if err != nil {
		return nil, cleanup, err
	}
	all := func(list []client.Container) bool {
		running := 0
		for _, c := range list {
			if c.Status == "running" {
				running++
			}
		}
		return running == comebackShims
	}
	return []variant{
		{"the API answers", func(ctx context.Context) (float64, error) {
			return e.comeback(ctx, func([]client.Container) bool { return true })
		}},
		{"and the state of all is known", func(ctx context.Context) (float64, error) { return e.comeback(ctx, all) }},
	}, cleanup, nil
}

// together calls f for each id, a few in parallel.
func together(ids []string, f func(id string) error) error {
	errs := make([]error, len(ids))
	slots := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for i, id := range ids {
		slots <- struct{}{}
		wg.Go(func() {
			errs[i] = f(id)
			<-slots
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// comeback kills cleatd, starts it, and returns how long it takes until a list of its containers is
// complete, in milliseconds.
func (e *environment) comeback(ctx context.Context, done func([]client.Container) bool) (float64, error) {
	if err := e.killCleat(); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := e.startCleat(ctx); err != nil {
		return 0, err
	}
	err := poll(ctx, func() error {
		c, err := client.Dial(ctx, e.cleat.address, client.Options{Namespace: e.namespace})
		if err != nil {
			return err
		}
		list, err := c.List(ctx, client.ListRequest{})
		if err := errors.Join(err, c.Close()); err != nil {
			return err
		}
		if !done(list) {
			return errors.New("list is not complete")
		}
		return nil
	})
	return milliseconds(time.Since(began)), err
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// poll calls f until it returns nil.
func poll(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, comebackLimit)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("no success within %v: %w", comebackLimit, err)
		}
	}
}

// killCleat kills cleatd as kill -9 does.
func (e *environment) killCleat() error {
	err := e.cleat.process.Process.Signal(syscall.SIGKILL)
	_ = e.cleat.process.Wait() // it was killed
	e.cleat.process = nil
	return errors.Join(err, e.cleat.log.Close())
}
