package content

import (
	"hash"
	"sync"
)

// besideFrom is from how many bytes on hashing beside the write is worth the handing over.
const besideFrom = 32 << 10

// hasher hashes on a goroutine of its own, which lives from the first start to stop. Not
// safe for concurrent use: whoever calls start calls wait before anything else.
type hasher struct {
	hash.Hash
	work chan []byte
	done chan struct{}
	wg   sync.WaitGroup
}

// start begins to hash p, which must not change until wait has returned.
func (h *hasher) start(p []byte) {
	if h.work == nil {
		h.work, h.done = make(chan []byte), make(chan struct{})
		h.wg.Go(func() {
			for p := range h.work {
				h.Hash.Write(p)
				h.done <- struct{}{}
			}
		})
	}
	h.work <- p
}

// wait returns when what start was given is hashed.
func (h *hasher) wait() { <-h.done }

// stop ends the goroutine and waits for it. The hash stays.
func (h *hasher) stop() {
	if h.work != nil {
		close(h.work)
		h.wg.Wait()
		h.work = nil
	}
}
