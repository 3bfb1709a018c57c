package content

import (
	"hash"
	"sync"
)

const (
	// bufferSize is the number of bytes that are read, written or hashed at a time.
	bufferSize = 512 << 10
	// buffersBehind is the number of buffers that the hash may lag behind the write. So neither waits for
	// the other to be woken up for each of them, which on a virtual machine costs as much as
	// writing it.
	buffersBehind = 4
	// behindFrom is the number of bytes from which that is worth the copy.
	behindFrom = 32 << 10
)

// hasher hashes in a goroutine of its own, which lives from the first add to stop, and lags behind
// its caller, who calls wait before using the hash. Not safe for concurrent use.
type hasher struct {
	hash hash.Hash
	bufs *sync.Pool // of *[]byte, bufferSize long

	work    chan piece
	free    chan *[]byte
	taken   int // buffers that are in use or in free
	pending sync.WaitGroup
	running sync.WaitGroup
}

// piece is the filled part of a buffer.
type piece struct {
	buf *[]byte
	n   int
}

// buffer returns a buffer to fill, for add.
func (h *hasher) buffer() *[]byte {
	if h.free == nil {
		h.free = make(chan *[]byte, buffersBehind)
	}
	if h.taken < buffersBehind {
		select {
		case b := <-h.free:
			return b
		default:
			h.taken++
			return h.bufs.Get().(*[]byte)
		}
	}
	return <-h.free
}

// add queues the first n bytes of a buffer for hashing.
func (h *hasher) add(b *[]byte, n int) {
	if h.work == nil {
		h.work = make(chan piece, buffersBehind)
		h.running.Go(func() {
			for p := range h.work {
				h.hash.Write((*p.buf)[:p.n])
				h.free <- p.buf
				h.pending.Done()
			}
		})
	}
	h.pending.Add(1)
	h.work <- piece{b, n}
}

// wait waits until all queued data is hashed, and returns the hash.
func (h *hasher) wait() hash.Hash {
	h.pending.Wait()
	return h.hash
}

// stop ends the goroutine and waits for it. The hash is kept.
func (h *hasher) stop() {
	if h.work != nil {
		close(h.work)
		h.running.Wait()
		h.work = nil
	}
	for ; h.taken > 0; h.taken-- {
		h.bufs.Put(<-h.free)
	}
}
