package integration

import (
	"testing"
	"time"
)

// sweep calls try for at least n moments, which cover the span that an operation usually takes. Try begins the
// operation, interrupts it at the moment and reports whether it had done its work by then. Where the operation is
// slower than the span, further moments cover twice the time each round, until both outcomes have been seen.
func sweep(t *testing.T, n int, span time.Duration, try func(i int, moment time.Duration) (done bool)) {
	t.Helper()
	const maxRounds = 8
	seen := make(map[bool]int)
	for i := 0; i < n || len(seen) < 2; i++ {
		if i == n*maxRounds {
			t.Fatalf("every one of %d attempts was done: %v", i, seen)
		}
		round, step := i/n, i%n
		seen[try(i, span<<round*time.Duration(step)/time.Duration(n))]++
	}
}

// pause waits for a moment that is itself what a test varies, such as that of an interruption. It is not for waiting
// until something has happened: see eventually.
func pause(moment time.Duration) {
	timer := time.NewTimer(moment)
	<-timer.C
}
