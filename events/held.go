package events

import (
	"fmt"
	"time"
)

// While the disk takes no writes, because it is full, read-only or broken, events are held in
// memory: they have cursors, and subscribers read them as any other. They are written, in their
// order and before any later one, as soon as the disk takes writes again; that is tried every
// retryEvery while there are any.

// retryEvery is the interval between attempts to write held events.
const retryEvery = time.Second

// Hold is a report about events that are held in memory.
type Hold struct {
	// Cause is the reason why events cannot be written; nil when they have been.
	Cause error
	// Events is how many have been written, and Lost how many were lost because more than
	// Options.Memory were held. Both are 0 while Cause is set.
	Events, Lost uint64
}

// record is an encoded event.
type record struct {
	cursor, sequence uint64
	data             []byte
}

// held are the events that could not be written.
type held struct {
	cause   error    // reason; nil while events are written
	records []record // oldest first
	size    int64    // bytes of records
	events  uint64   // how many were held since cause was set
	lost    uint64   // of those
	begun   bool     // a segment was started after the gap of the lost events
}

// holdingLocked starts to hold events.
func (l *Log) holdingLocked(cause error) {
	l.held.cause = cause
	l.opts.OnHold(Hold{Cause: cause})
	l.wakeLocked()
}

// holdLocked keeps a record in memory, and drops the oldest if there are too many.
func (l *Log) holdLocked(r record) {
	h := &l.held
	h.records = append(h.records, r)
	h.size += int64(len(r.data))
	h.events++
	for h.size > l.opts.Memory && len(h.records) > 1 {
		l.dropped, h.begun = h.records[0].cursor, false
		h.size -= int64(len(h.records[0].data))
		h.records = h.records[1:]
		h.lost++
	}
}

// flushLocked writes held events, as far as the disk takes them.
func (l *Log) flushLocked() {
	h := &l.held
	if h.cause == nil {
		return
	}
	if h.lost > 0 && !h.begun { // so that events before the gap are dropped with their segments
		if err := l.beginLocked(h.records[0].cursor); err != nil {
			h.cause = err
			return
		}
		h.begun = true
	}
	for len(h.records) > 0 {
		if err := l.writeLocked(h.records[0]); err != nil {
			h.cause = err
			return
		}
		h.size -= int64(len(h.records[0].data))
		h.records = h.records[1:]
	}
	if l.file == nil {
		if err := l.beginLocked(l.last + 1); err != nil {
			h.cause = err
			return
		}
	}
	done := Hold{Events: h.events - h.lost, Lost: h.lost}
	l.held = held{}
	l.opts.OnHold(done)
}

// Written reports whether every appended event is in a file. Those that are not are lost
// if the process ends before there is space.
func (l *Log) Written() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held.cause == nil
}

// wakeLocked makes the background goroutine check the log.
func (l *Log) wakeLocked() {
	select {
	case l.dirty <- struct{}{}:
	default:
	}
}

// gather is how long the background sync waits for more events: a sync delays all other syncs on the
// same file system.
const gather = 50 * time.Millisecond

// background syncs appended records, as many as have gathered with each sync, and
// writes held events once the disk takes them.
func (l *Log) background() {
	defer l.synced.Done()
	for {
		select {
		case <-l.dirty:
		case <-l.closing:
			return
		}
		for again := true; again; {
			l.mu.Lock()
			pause := gather
			if again = l.held.cause != nil; again {
				pause = l.opts.retry
			}
			l.mu.Unlock()
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-l.closing: // Close writes and syncs itself
				timer.Stop()
				return
			}
			l.retry()
			l.syncWritten()
		}
	}
}

func (l *Log) retry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.flushLocked()
	}
}

// syncWritten syncs the last segment.
func (l *Log) syncWritten() {
	l.mu.Lock()
	if len(l.segments) == 0 || l.closed || !l.unsynced {
		l.mu.Unlock()
		return
	}
	l.unsynced = false
	// Opened again: the writer's own descriptor may be closed at any time.
	path, written := l.segments[len(l.segments)-1].path, l.writtenLocked()
	l.mu.Unlock()
	err := l.disk.SyncFile(path)
	if notExist(err) {
		return // dropped
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("sync event log: %w", err)
	}
	l.syncedLocked(written, err)
}
