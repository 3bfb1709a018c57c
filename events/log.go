package events

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/durable"
)

// Options are the limits of a log; the zero value is usable.
type Options struct {
	// Keep is the minimal number of bytes of events that are kept; 0 means 64 MiB.
	Keep int64
	// Segment is the size at which a new segment file starts; 0 means 4 MiB.
	Segment int64
	// Memory is the maximal number of bytes of events held in memory while they cannot be written; 0 means
	// 16 MiB. The oldest are lost beyond that.
	Memory int64
	// OnError receives errors that do not stop the log: a failed sync (events are then safe against
	// the end of the process but not against power loss), files that cannot be read. nil to ignore.
	OnError func(error)
	// OnHold receives a report when the log starts to hold events in memory, and when it has written
	// them; nil to ignore. It is called with the log's lock held and must not call the log.
	OnHold func(Hold)
	// FS is the file system that the log writes to; nil is the host's.
	FS durable.FS
	// Now is the clock; nil means time.Now.
	Now func() time.Time

	retry time.Duration // between attempts to write held events; 0 means retryEvery
}

func (o *Options) complete() {
	if o.Keep == 0 {
		o.Keep = 64 << 20
	}
	if o.Segment == 0 {
		o.Segment = 4 << 20
	}
	if o.Memory == 0 {
		o.Memory = 16 << 20
	}
	if o.OnError == nil {
		o.OnError = func(error) {}
	}
	if o.OnHold == nil {
		o.OnHold = func(Hold) {}
	}
	if o.FS == nil {
		o.FS = durable.OS{}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.retry == 0 {
		o.retry = retryEvery
	}
}

// Log is an open event log. Its methods may be called concurrently.
type Log struct {
	dir  string
	opts Options
	disk durable.Disk

	mu       sync.Mutex
	segments []*segment    // oldest first; the last is being written while file is set
	file     durable.File  // nil while no segment can be written
	held     held          // events that could not be written yet
	last     uint64        // last cursor assigned
	lastTime time.Time     // last time stamp assigned
	dropped  uint64        // events up to here are no longer kept
	reserved uint64        // cursors up to here are safe to assign
	sequence uint64        // the highest Event.Sequence ever appended
	settled  uint64        // the highest that is on disk
	unsynced bool          // records were written since the last sync began
	doubtful bool          // a sync failed: the state on disk is uncertain until the log is opened again
	grown    chan struct{} // closed and replaced when a record is added
	closed   bool

	dirty   chan struct{}
	closing chan struct{}
	synced  sync.WaitGroup
}

// Open opens the log in dir, which it creates, and removes what a crash left unfinished. A
// directory that cannot be read or written (no space, read-only, I/O errors) is not an error: events
// are then held in memory, see Options.OnHold, until they can be written.
func Open(dir string, opts Options) (*Log, error) {
	opts.complete()
	l := &Log{
		dir: dir, opts: opts, disk: durable.On(opts.FS),
		grown: make(chan struct{}), dirty: make(chan struct{}, 1), closing: make(chan struct{}),
	}
	l.load()
	if err := l.beginLocked(l.last + 1); err != nil {
		l.holdingLocked(err)
	}
	l.synced.Add(1)
	go l.background()
	return l, nil
}

// Sequence returns the highest Event.Sequence that was appended, and the highest that is
// on disk: an event up to that one survives power loss.
func (l *Log) Sequence() (last, settled uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sequence, l.settled
}

// Append adds e and returns its cursor. The event survives the end of this process from then on,
// unless it is held in memory (Written). Time stamps never decrease: one before that of the last
// event, or in the future, is replaced.
func (l *Log) Append(e Event) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, fmt.Errorf("append event %s: log is closed: %w", e.Topic, errdefs.ErrUnavailable)
	}
	e.Cursor, e.Timestamp = l.last+1, l.stampLocked(e.Timestamp)
	rec, err := encode(e)
	if err != nil {
		return 0, fmt.Errorf("append event %s: %w: %w", e.Topic, err, errdefs.ErrInvalidArgument)
	}
	r := record{cursor: e.Cursor, sequence: e.Sequence, data: rec}
	if l.held.cause == nil {
		if err := l.writeLocked(r); err != nil {
			l.holdingLocked(err)
		}
	}
	if l.held.cause != nil {
		l.holdLocked(r)
	}
	l.last, l.lastTime = e.Cursor, e.Timestamp
	l.sequence = max(l.sequence, e.Sequence)
	close(l.grown)
	l.grown = make(chan struct{})
	l.wakeLocked()
	return e.Cursor, nil
}

// clockSetBack is the tolerance by which the last time stamp may be ahead of the clock. Beyond that the clock
// was set back, and time stamps follow it.
const clockSetBack = time.Minute

// stampLocked returns the time stamp for an event of time t.
func (l *Log) stampLocked(t time.Time) time.Time {
	now := l.opts.Now().UTC().Round(0)
	if t.After(now) {
		t = now
	}
	if t.Before(l.lastTime) && !l.lastTime.After(now.Add(clockSetBack)) {
		t = l.lastTime
	}
	return t
}

// Cursor returns the last cursor assigned: a subscription from it receives new events only.
func (l *Log) Cursor() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Close writes, syncs and closes the log and ends every subscription. Events that cannot be written
// are lost, which is reported to Options.OnError.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	close(l.grown)
	l.flushLocked()
	if n := len(l.held.records); n > 0 {
		l.opts.OnError(fmt.Errorf("close event log %s: %d events are lost: %w", l.dir, n, l.held.cause))
	}
	var err error
	if l.file != nil {
		err = errors.Join(l.file.Sync(), l.file.Close())
	}
	l.mu.Unlock()
	close(l.closing)
	l.synced.Wait()
	if err != nil {
		return fmt.Errorf("close event log %s: %w", l.dir, err)
	}
	return nil
}

// Subscribe returns a subscription to the events after cursor. One that is older than the
// log is errdefs.ErrOutOfRange; one from the future, errdefs.ErrInvalidArgument.
func (l *Log) Subscribe(cursor uint64) (*Subscription, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if cursor > l.last {
		return nil, fmt.Errorf("subscribe after %d: log ends at %d: %w", cursor, l.last, errdefs.ErrInvalidArgument)
	}
	if cursor < l.dropped {
		return nil, outOfRange(cursor, l.dropped)
	}
	return &Subscription{log: l, after: cursor}, nil
}

// Oldest returns the lowest cursor that can be subscribed after.
func (l *Log) Oldest() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}

func outOfRange(cursor, dropped uint64) error {
	return fmt.Errorf("read events after %d: events up to %d are no longer kept: %w",
		cursor, dropped, errdefs.ErrOutOfRange)
}

// place is the position where a subscription continues: a segment and how much of it may be read, or a record
// that is held in memory, or neither and a channel that closes when an event is added.
type place struct {
	seg   *segment
	limit int64
	held  []byte
	news  <-chan struct{}
}

// next returns the place of the first event after cursor.
func (l *Log) next(cursor uint64) (place, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return place{}, fmt.Errorf("read events: log is closed: %w", errdefs.ErrUnavailable)
	}
	if cursor < l.dropped {
		return place{}, outOfRange(cursor, l.dropped)
	}
	for _, s := range l.segments {
		if s.last > cursor {
			return place{seg: s, limit: s.size}, nil
		}
	}
	records := l.held.records
	if i := sort.Search(len(records), func(i int) bool { return records[i].cursor > cursor }); i < len(records) {
		return place{held: records[i].data}, nil
	}
	return place{news: l.grown}, nil
}

// wait returns when news closes or ctx ends.
func wait(ctx context.Context, news <-chan struct{}) error {
	select {
	case <-news:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// notExist reports whether err is of a missing file.
func notExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
