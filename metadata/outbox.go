package metadata

import (
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/cleatproject/cleat/events"
)

// Outlet receives the events of committed transactions; *events.Log is one.
type Outlet interface {
	// Append accepts an event. Those of a database come with increasing numbers, in Event.Sequence.
	Append(events.Event) (uint64, error)
	// Sequence returns the number of the last accepted event, and that of the last one that will
	// survive power loss.
	Sequence() (last, settled uint64)
}

var _ Outlet = (*events.Log)(nil)

// outbox carries events from transactions to the outlet, each once and in the order of the commits.
// They are written with the changes they describe and delivered after the commit; a later update
// removes what the outlet has on disk, without a transaction of its own. Events left by a crash are
// delivered at the next start: the outlet's last number identifies them.
type outbox struct {
	outlet  Outlet
	onError func(error)
	step    func(string)

	// The leader of the queue owns these, and passes them on under the queue's lock.
	next    uint64         // the number of the next event
	oldest  uint64         // no lower number is in the bucket
	fresh   []events.Event // published by the active transaction
	clears  uint64         // the active transaction deletes up to this number
	waiting []events.Event // committed, not delivered
}

// load reads what an earlier process left, at open.
func (o *outbox) load(b *bolt.Bucket) error {
	if b == nil {
		return errors.New("no outbox")
	}
	var last uint64
	if o.outlet != nil {
		last, _ = o.outlet.Sequence()
	}
	o.next = last + 1
	scope := scopeOf(outboxBucket)
	return b.ForEach(func(k, raw []byte) error {
		raw, err := scope.open(string(k), raw)
		if err != nil {
			return fmt.Errorf("outbox: %w", err)
		}
		e := events.Event{Sequence: uint64Of(k)}
		if err := decodeEvent(raw, &e); err != nil {
			return fmt.Errorf("outbox: %w", err)
		}
		if o.oldest == 0 {
			o.oldest = e.Sequence
		}
		o.next = max(o.next, e.Sequence+1)
		if e.Sequence > last && o.outlet != nil {
			o.waiting = append(o.waiting, e)
		}
		return nil
	})
}

// Publish adds an event to the transaction: it is published if and when the transaction is
// committed.
func (tx *Tx) Publish(namespace, topic string, event Any) error {
	if tx.outbox.outlet == nil {
		return nil
	}
	tx.written = true
	e := events.Event{
		Sequence: tx.outbox.next, Timestamp: tx.time(), Namespace: namespace, Topic: topic,
		TypeURL: event.TypeURL, Value: event.Value,
	}
	key := string(binary.BigEndian.AppendUint64(nil, e.Sequence))
	record := scopeOf(outboxBucket).seal(key, encodeEvent(&e))
	if err := tx.root.Bucket([]byte(outboxBucket)).Put([]byte(key), record); err != nil {
		return fmt.Errorf("publish %s: %w", topic, putError(err))
	}
	tx.outbox.next++
	tx.outbox.fresh = append(tx.outbox.fresh, e)
	return nil
}

// The steps of an update, as passed to Options.Step.
const (
	stepCommit  = "commit"  // the changes are written to disk
	stepDeliver = "deliver" // committed, an event goes to the outlet
	stepAnswer  = "answer"  // all events are delivered
)

// begin prepares the outbox for a transaction, which also deletes settled events.
func (o *outbox) begin(btx *bolt.Tx) error {
	o.fresh, o.clears = nil, 0
	if o.outlet == nil {
		return nil
	}
	_, settled := o.outlet.Sequence()
	if o.oldest == 0 || o.oldest > settled {
		return nil
	}
	o.clears = settled
	c := btx.Bucket([]byte(rootBucket)).Bucket([]byte(outboxBucket)).Cursor()
	for k, _ := c.First(); k != nil && uint64Of(k) <= settled; k, _ = c.First() {
		if err := c.Delete(); err != nil {
			return fmt.Errorf("clear outbox: %w", err)
		}
	}
	return nil
}

// committed follows a successful commit.
func (o *outbox) committed() {
	defer o.step(stepAnswer)
	if o.outlet == nil {
		return
	}
	if o.clears != 0 {
		o.oldest = o.clears + 1
	}
	if len(o.fresh) == 0 {
		return
	}
	if o.oldest == 0 {
		o.oldest = o.fresh[0].Sequence
	}
	o.waiting = append(o.waiting, o.fresh...)
	o.fresh = nil
	o.deliver()
}

// deliver delivers the waiting events. An event that the outlet refuses keeps waiting, as do those
// after it.
func (o *outbox) deliver() {
	for len(o.waiting) > 0 {
		e := o.waiting[0]
		o.step(stepDeliver)
		if _, err := o.outlet.Append(e); err != nil {
			if o.onError != nil {
				o.onError(fmt.Errorf("publish %s: %w", e.Topic, err))
			}
			return
		}
		o.waiting = o.waiting[1:]
	}
	o.waiting = nil
}
