package harness

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// Second returns the error of a call with two results.
func Second[T any](_ T, err error) error { return err }

// Parallel calls f for 0..n-1, a few at a time.
func Parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(i)
		})
	}
	wg.Wait()
}

// Limit is how long anything in a test may take that should be quick. It is a deadline for hangs and not a measure.
const Limit = 60 * time.Second

// Eventually calls f until it returns nil, and fails the test if that takes longer than Limit.
func (d *Daemon) Eventually(what string, f func() error) {
	d.T.Helper()
	Eventually(d.T, what, f, func() string { return d.Log() })
}

// Eventually calls f until it returns nil. After Limit it fails the test with the results of more.
func Eventually(t *testing.T, what string, f func() error, more ...func() string) {
	t.Helper()
	deadline := time.After(Limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in time: %s: %v\n%s", what, err, joined(more))
		}
	}
}

// Must fails the test on an error.
func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Size is the number of repetitions in a test: few, or full if CLEAT_FULL is 1.
func Size(few, full int) int {
	if os.Getenv("CLEAT_FULL") == "1" {
		return full
	}
	return few
}

// Within fails the test if f takes longer than limit, as f does if it waits for something that must not delay it.
func Within(t *testing.T, what string, f func()) {
	t.Helper()
	began := time.Now()
	f()
	took := time.Since(began)
	t.Logf("%s: %s", what, took.Round(time.Millisecond))
	if took > Limit {
		t.Errorf("%s took %s", what, took)
	}
}

// Exists returns an error while the file does not exist.
func Exists(path string) func() error {
	return func() error {
		_, err := os.Lstat(path)
		return err
	}
}

// IgnoreGone returns nil for an error about a file that does not exist.
func IgnoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func joined(more []func() string) string {
	var all strings.Builder
	for _, f := range more {
		all.WriteString(f())
	}
	return all.String()
}
