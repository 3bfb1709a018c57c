package containers

import (
	"sync"

	"github.com/cleatproject/cleat/runtime"
)

// exitsKept bounds how many exits of removed containers are remembered.
const exitsKept = 4096

// recentExits remembers how containers ended whose records are gone or going, for clients that were
// about to wait for them. The event log has every exit; this is the short way. Bounded: the oldest
// are forgotten.
type recentExits struct {
	mu    sync.Mutex
	exits map[string]runtime.Exit
	order []string
}

func (r *recentExits) put(name string, e runtime.Exit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.exits == nil {
		r.exits = make(map[string]runtime.Exit)
	}
	if _, ok := r.exits[name]; !ok {
		r.order = append(r.order, name)
	}
	r.exits[name] = e
	for len(r.order) > exitsKept {
		delete(r.exits, r.order[0])
		r.order = r.order[1:]
	}
}

func (r *recentExits) get(name string) (runtime.Exit, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.exits[name]
	return e, ok
}

// drop forgets an exit: a new container takes the name.
func (r *recentExits) drop(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.exits[name]; !ok {
		return
	}
	delete(r.exits, name)
	for i, n := range r.order {
		if n == name {
			r.order = append(r.order[:i:i], r.order[i+1:]...)
			return
		}
	}
}
