package metadata

import (
	"context"
	"errors"
	"sync"

	bolt "go.etcd.io/bbolt"
)

// queue lets updates that arrive while another is being synced share the next sync. The caller at
// its head leads: it commits what is queued, itself included, and then passes the lead on. There is
// no goroutine and no delay: a single update is committed at once.
type queue struct {
	mu      sync.Mutex
	waiting []*request
	leading bool
}

// request is one call of DB.Update.
type request struct {
	fn   func(*Tx) error
	call func() error // reports that the caller has given up
	// lease is that of the caller's context; changes is what fn did, for the watcher.
	lease   string
	changes Changes
	err     error
	// solo, if set, replaces fn: it runs its own transactions, while no other is active.
	solo func() error
	// done receives false when err is final, true when the caller must lead.
	done chan bool
}

// errRetry ends a shared transaction from inside, to leave out a closure that failed.
var errRetry = errors.New("retry without the failed update")

// maxShared bounds the updates that share a transaction.
const maxShared = 256

// Update runs fn in a read-write transaction and commits it if fn returns nil; the commit is on
// disk when Update returns, and the events it published have been delivered. fn may run more than
// once (see the package comment), but takes effect once or never. ctx is checked before fn runs; a
// commit that has begun is always awaited, so that the result is certain.
func (db *DB) Update(ctx context.Context, fn func(tx *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	u := &request{fn: fn, call: ctx.Err, lease: LeaseOf(ctx), done: make(chan bool, 1)}
	db.enqueue(u)
	return u.err
}

// runSolo runs fn, which makes one transaction by itself, in its turn among the updates, and
// delivers the events that it published.
func (db *DB) runSolo(fn func(btx *bolt.Tx) error, after func()) error {
	u := &request{done: make(chan bool, 1)}
	u.solo = func() error {
		err := db.transact(true, func(btx *bolt.Tx) error {
			if err := db.begin(btx); err != nil {
				return err
			}
			if err := fn(btx); err != nil {
				return err
			}
			db.outbox.step(stepCommit)
			return nil
		})
		after()
		if err == nil {
			db.outbox.committed()
		}
		return err
	}
	db.enqueue(u)
	return u.err
}

// enqueue returns when a request has been processed.
func (db *DB) enqueue(u *request) {
	db.mu.Lock()
	db.waiting = append(db.waiting, u)
	lead := !db.leading
	db.leading = true
	db.mu.Unlock()
	if lead || <-u.done {
		db.lead()
	}
}

// lead commits one batch, which holds the leader's own update, and passes the lead on.
func (db *DB) lead() {
	db.mu.Lock()
	n := 1
	for n < min(len(db.waiting), maxShared) && db.waiting[0].solo == nil && db.waiting[n].solo == nil {
		n++
	}
	batch := db.waiting[:n:n]
	db.waiting = db.waiting[n:]
	db.mu.Unlock()

	if solo := batch[0].solo; solo != nil {
		batch[0].err = solo()
	} else {
		db.commit(batch)
		db.notifyWatcher(batch)
	}
	for _, u := range batch[1:] {
		u.done <- false
	}

	db.mu.Lock()
	defer db.mu.Unlock()
	if len(db.waiting) == 0 {
		db.waiting, db.leading = nil, false
		return
	}
	db.waiting[0].done <- true
}

// commit runs the batch in one transaction. An update that fails after it has written something
// cannot be left out of a transaction that continues: then all is rolled back, the others are run
// again, and it is run alone at the end, to fail on a definite state.
func (db *DB) commit(batch []*request) {
	shared, alone := batch, []*request(nil)
	for len(shared) > 1 {
		failed := -1
		err := db.transact(true, func(btx *bolt.Tx) error {
			if err := db.begin(btx); err != nil {
				return err
			}
			for i, u := range shared {
				tx := db.tx(btx)
				u.err = db.run(u, tx)
				if u.err != nil && tx.written {
					failed = i
					return errRetry
				}
			}
			db.outbox.step(stepCommit)
			return nil
		})
		if failed < 0 {
			failAll(shared, err)
			if err == nil {
				db.outbox.committed()
			}
			break
		}
		alone = append(alone, shared[failed])
		shared = append(append([]*request(nil), shared[:failed]...), shared[failed+1:]...)
	}
	if len(shared) == 1 {
		alone = append(alone, shared[0])
	}
	for _, u := range alone {
		u.err = db.transact(true, func(btx *bolt.Tx) error {
			if err := db.begin(btx); err != nil {
				return err
			}
			if err := db.run(u, db.tx(btx)); err != nil {
				return err
			}
			db.outbox.step(stepCommit)
			return nil
		})
		if u.err == nil {
			db.outbox.committed()
		}
	}
}

// begin prepares the database for a transaction.
func (db *DB) begin(btx *bolt.Tx) error {
	db.room.ensure(db.bolt, btx)
	return db.outbox.begin(btx)
}

// run runs the closure of an update, which is refused if there is no room for what it adds.
func (db *DB) run(u *request, tx *Tx) error {
	if err := u.run(tx); err != nil {
		return err
	}
	return db.room.refuse(db.bolt, tx)
}

func (u *request) run(tx *Tx) error {
	if err := u.call(); err != nil {
		return err
	}
	tx.lease = u.lease
	err := u.fn(tx)
	u.changes = changesOf(tx)
	return err
}

// failAll assigns the commit's failure to all: even an update that had failed may have been judged
// by what was not written after all.
func failAll(batch []*request, err error) {
	if err == nil {
		return
	}
	for _, u := range batch {
		u.err = err
	}
}
