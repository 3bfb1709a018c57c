package shim

import (
	"runtime"
	"runtime/debug"
	"time"
)

// Memory. There is a shim for each container, so that its private memory counts. Measured with Go
// 1.26, most of an idle shim's is not its heap but what the Go runtime keeps for itself:
//
//   - each further P costs about 350 KiB, hence GOMAXPROCS=1, which must be in the environment when
//     the process starts: lowering it later gives nothing back;
//   - the first few collections cost about 400 KiB of bookkeeping that is never given back, while
//     a container's create, start and a few execs allocate less than that in all. So the collector
//     is off, also its periodic run, until the heap has grown enough to be worth it.
//
// Even reading the heap's size (ReadMemStats) costs 400 KiB, so calls are counted instead.
const (
	// collectAfter calls there is about 2 MiB of garbage.
	collectAfter = 64
	// memoryLimit starts a collection during a burst.
	memoryLimit = 32 << 20
	// trimDelay is how long after the last of them the garbage is collected.
	trimDelay = 300 * time.Millisecond
)

// limitMemory configures the Go runtime; see above.
func limitMemory() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(memoryLimit)
	if runtime.GOMAXPROCS(0) > 1 {
		runtime.GOMAXPROCS(1)
	}
}

// countCall is called after each call that may have left garbage.
func (s *Server) countCall() {
	if s.calls.Add(1) == collectAfter { // once, so that a stream of calls cannot postpone it
		s.trim.Reset(trimDelay)
	}
}

// collect gives memory back to the kernel.
func (s *Server) collect() {
	s.calls.Store(0)
	debug.FreeOSMemory()
}
