package service

import (
	"sync"
	"time"

	"github.com/cleatproject/cleat/metadata"
)

// keepBroken is how long what a pull has fetched is kept that was broken off, for the next try.
const keepBroken = time.Hour

// keptPulls are the holds of pulls that were broken off, by namespace and reference. The zero value
// is ready to use; close it.
type keptPulls struct {
	mu     sync.Mutex
	closed bool
	pulls  map[string]*keptPull
}

type keptPull struct {
	hold  *metadata.Hold
	timer *time.Timer
}

// take returns the hold of an earlier try, or nil. It is the caller's from then on.
func (k *keptPulls) take(key string) *metadata.Hold {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.pulls[key]
	if p == nil {
		return nil
	}
	delete(k.pulls, key)
	p.timer.Stop()
	return p.hold
}

// put keeps a hold for a while, in the place of an earlier one.
func (k *keptPulls) put(key string, hold *metadata.Hold) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		hold.Release()
		return
	}
	if old := k.pulls[key]; old != nil {
		old.end()
	}
	if k.pulls == nil {
		k.pulls = make(map[string]*keptPull)
	}
	p := &keptPull{hold: hold}
	p.timer = time.AfterFunc(keepBroken, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.pulls[key] == p {
			delete(k.pulls, key)
			hold.Release()
		}
	})
	k.pulls[key] = p
}

func (p *keptPull) end() {
	p.timer.Stop()
	p.hold.Release()
}

// close releases every hold; what is put afterwards is released at once.
func (k *keptPulls) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	for _, p := range k.pulls {
		p.end()
	}
	k.pulls = nil
}
