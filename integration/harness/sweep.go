package harness

import (
	"testing"
	"time"
)

// RunSpan is roughly the time from the start of the CLI to the running container.
const RunSpan = 160 * time.Millisecond

// Moments is the number of moments at which a run is interrupted.
func Moments() int { return Size(16, 100) }

// Sweep calls try for at least n moments, which cover the usual duration of an operation. Try starts the operation,
// interrupts it at the moment and reports whether it was complete. If the operation takes longer, further moments
// cover twice the time in each round, until both outcomes have occurred.
func Sweep(t *testing.T, n int, span time.Duration, try func(i int, moment time.Duration) (done bool)) {
	t.Helper()
	const maxRounds = 8
	seen := make(map[bool]int)
	for i := 0; i < n || len(seen) < 2; i++ {
		if i == n*maxRounds {
			t.Fatalf("all of %d attempts had the same outcome: %v", i, seen)
		}
		round, step := i/n, i%n
		seen[try(i, span<<round*time.Duration(step)/time.Duration(n))]++
	}
}

// Pause waits for a moment that the test varies, such as that of an interruption. It must not be used to wait for an
// event: see eventually.
func Pause(moment time.Duration) {
	timer := time.NewTimer(moment)
	<-timer.C
}
