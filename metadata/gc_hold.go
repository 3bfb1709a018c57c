package metadata

import "sync"

// holds are the objects that active calls work with, each with the number of its holders. The lock
// is held over a sweep's transaction up to its commit: a new hold is either respected by the sweep, or
// its holder sees what the sweep has left.
type holds struct {
	mu    sync.Mutex
	count map[Object]int
}

// Hold keeps objects from being collected while a call works with them in several steps, like a
// lease that exists in memory only. Hold before reading: what is found after Add has returned
// stays, with all it refers to, until Release. An object need not exist yet. The methods are safe
// for concurrent use.
type Hold struct {
	db        *DB
	namespace string
	objects   []Object
	released  bool
}

// Hold returns an empty hold on objects of a namespace; release it.
func (db *DB) Hold(namespace string) *Hold { return &Hold{db: db, namespace: namespace} }

// Content holds a blob.
func (h *Hold) Content(digest string) { h.add(Object{Kind: KindContent, Name: digest}) }

// Snapshot holds a snapshot; an empty key is nothing.
func (h *Hold) Snapshot(snapshotter, key string) {
	h.add(Object{Kind: KindSnapshot, Set: snapshotter, Name: key})
}

// Image holds an image by its name.
func (h *Hold) Image(name string) { h.add(Object{Kind: KindImage, Name: name}) }

func (h *Hold) add(o Object) {
	if o.Name == "" {
		return
	}
	o.Namespace = h.namespace
	h.db.holds.mu.Lock()
	defer h.db.holds.mu.Unlock()
	if h.released {
		return
	}
	if h.db.holds.count == nil {
		h.db.holds.count = make(map[Object]int)
	}
	h.db.holds.count[o]++
	h.objects = append(h.objects, o)
}

// Release releases all objects. It is idempotent, and nothing can be added afterwards.
func (h *Hold) Release() {
	h.db.holds.mu.Lock()
	defer h.db.holds.mu.Unlock()
	h.released = true
	for _, o := range h.objects {
		if h.db.holds.count[o]--; h.db.holds.count[o] == 0 {
			delete(h.db.holds.count, o)
		}
	}
	h.objects = nil
}

// markHeldLocked marks what active calls hold.
func (h *holds) markHeldLocked(g *graph) {
	for o := range h.count {
		if o.Namespace != g.ns {
			continue
		}
		if i, ok := g.index[o.name()]; ok {
			g.mark(i, markedFull)
		}
	}
}
