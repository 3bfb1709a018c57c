package events

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/durable"
)

// Options are the limits of a log; the zero value is usable.
type Options struct {
	// Keep is how many bytes of events are kept at least; 0 means 64 MiB.
	Keep int64
	// Segment is the size at which a new segment file begins; 0 means 4 MiB.
	Segment int64
	// OnSyncError is told when the background sync fails; nil to ignore. Events are then safe
	// against the end of the process but not against power loss.
	OnSyncError func(error)
}

// reserveStep is how many cursors are set aside by one durable write.
const reserveStep = 1 << 16

// segment is one file of the log.
type segment struct {
	first uint64 // no record in it has a lower cursor
	last  uint64 // cursor of its last record; 0 while it has none
	path  string
	size  int64 // bytes of whole records
	// sequence is the highest Event.Sequence in it, 0 for none.
	sequence uint64
}

// Log is an open event log. Its methods may be called concurrently.
type Log struct {
	dir  string
	opts Options

	mu       sync.Mutex
	segments []*segment // oldest first; the last is being written
	file     *os.File
	last     uint64        // cursor given out last
	dropped  uint64        // events up to here are no longer kept
	reserved uint64        // cursors up to here are safe to give out
	sequence uint64        // the highest Event.Sequence ever appended
	settled  uint64        // the same of what is on disk
	grown    chan struct{} // closed and replaced when a record is added
	closed   bool

	dirty   chan struct{}
	closing chan struct{}
	synced  sync.WaitGroup
}

// gather is how long the background sync lets events gather: a sync costs everybody else who syncs
// on the same file system.
const gather = 50 * time.Millisecond

// Open opens the log in dir, which it creates, and cuts off what a crash left unfinished.
func Open(dir string, opts Options) (*Log, error) {
	if opts.Keep == 0 {
		opts.Keep = 64 << 20
	}
	if opts.Segment == 0 {
		opts.Segment = 4 << 20
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create event log: %w", err)
	}
	l := &Log{dir: dir, opts: opts, grown: make(chan struct{}), dirty: make(chan struct{}, 1), closing: make(chan struct{})}
	if err := l.load(); err != nil {
		return nil, fmt.Errorf("open event log %s: %w", dir, err)
	}
	l.synced.Add(1)
	go l.syncLoop()
	return l, nil
}

// load finds the segments and begins a new one beyond every cursor ever given out.
func (l *Log) load() error {
	names, err := filepath.Glob(filepath.Join(l.dir, "*.log"))
	if err != nil {
		return err
	}
	for _, p := range names { // Glob sorts, and fixed-width hex sorts by value
		first, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(p), ".log"), 16, 64)
		if err != nil {
			continue // not ours
		}
		seg := &segment{first: first, path: p}
		last, err := scan(seg)
		if err != nil {
			return err
		}
		if seg.size == 0 {
			if err := os.Remove(p); err != nil {
				return fmt.Errorf("remove empty segment: %w", err)
			}
			continue
		}
		seg.last = last
		l.last = max(l.last, last)
		l.sequence = max(l.sequence, seg.sequence)
		l.segments = append(l.segments, seg)
	}
	if len(l.segments) > 0 {
		l.dropped = l.segments[0].first - 1
	}
	reserved, err := l.readNumber("reserved")
	if err != nil {
		return err
	}
	dropped, err := l.readNumber("sequence")
	if err != nil {
		return err
	}
	l.sequence = max(l.sequence, dropped)
	// The last run may have left its end in the page cache only.
	if n := len(l.segments); n > 0 {
		if err := syncFile(l.segments[n-1].path); err != nil {
			return fmt.Errorf("sync segment: %w", err)
		}
	}
	l.settled = l.sequence
	l.last = max(l.last, reserved)
	if len(l.segments) == 0 {
		l.dropped = l.last
	}
	return l.beginLocked()
}

// readNumber reads one of the files that hold a number; 0 where there is none.
func (l *Log) readNumber(name string) (uint64, error) {
	data, err := os.ReadFile(filepath.Join(l.dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("file %s: %w", name, err)
	}
	return n, nil
}

// beginLocked starts a new segment after the last cursor.
func (l *Log) beginLocked() error {
	if err := l.reserveLocked(); err != nil {
		return err
	}
	path := filepath.Join(l.dir, fmt.Sprintf("%016x.log", l.last+1))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("begin segment: %w", err)
	}
	if l.file != nil {
		if err := errors.Join(l.file.Sync(), l.file.Close()); err != nil {
			return errors.Join(fmt.Errorf("finish segment: %w", err), f.Close())
		}
		l.settled = l.sequence
	}
	// What is told to be on disk must be found there.
	if err := durable.SyncDir(l.dir); err != nil {
		return errors.Join(fmt.Errorf("begin segment: %w", err), f.Close())
	}
	l.file = f
	l.segments = append(l.segments, &segment{first: l.last + 1, path: path})
	return l.dropLocked()
}

func (l *Log) reserveLocked() error {
	if l.last+1 < l.reserved {
		return nil
	}
	next := l.last + reserveStep
	if err := durable.WriteFile(filepath.Join(l.dir, "reserved"), []byte(strconv.FormatUint(next, 10)), 0o600); err != nil {
		return fmt.Errorf("reserve cursors: %w", err)
	}
	l.reserved = next
	return nil
}

// dropLocked forgets the oldest segments while the rest still keeps enough.
func (l *Log) dropLocked() error {
	var total int64
	for _, s := range l.segments {
		total += s.size
	}
	for len(l.segments) > 1 && total-l.segments[0].size >= l.opts.Keep {
		if err := l.keepSequenceLocked(); err != nil {
			return err
		}
		total -= l.segments[0].size
		if err := os.Remove(l.segments[0].path); err != nil {
			return fmt.Errorf("drop old segment: %w", err)
		}
		l.segments = l.segments[1:]
		l.dropped = l.segments[0].first - 1
	}
	return nil
}

// keepSequenceLocked writes down the last sequence where the oldest segment, about to be
// dropped, is the one that tells it.
func (l *Log) keepSequenceLocked() error {
	if s := l.segments[0].sequence; s == 0 || s < l.sequence {
		return nil
	}
	if err := durable.WriteFile(filepath.Join(l.dir, "sequence"), []byte(strconv.FormatUint(l.sequence, 10)), 0o600); err != nil {
		return fmt.Errorf("keep sequence: %w", err)
	}
	return nil
}

// Sequence returns the highest Event.Sequence that was appended, and the highest that is
// on disk: an event up to that one survives power loss.
func (l *Log) Sequence() (last, settled uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sequence, l.settled
}

// Append adds e and returns its cursor. The event survives the end of this process from then on.
func (l *Log) Append(e Event) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, fmt.Errorf("append event %s: log is closed: %w", e.Topic, errdefs.ErrUnavailable)
	}
	seg := l.segments[len(l.segments)-1]
	if seg.size >= l.opts.Segment {
		if err := l.beginLocked(); err != nil {
			return 0, fmt.Errorf("append event %s: %w", e.Topic, err)
		}
		seg = l.segments[len(l.segments)-1]
	}
	if err := l.reserveLocked(); err != nil {
		return 0, fmt.Errorf("append event %s: %w", e.Topic, err)
	}
	e.Cursor = l.last + 1
	rec, err := encode(e)
	if err != nil {
		return 0, fmt.Errorf("append event %s: %w: %w", e.Topic, err, errdefs.ErrInvalidArgument)
	}
	if _, err := l.file.Write(rec); err != nil {
		// A part of the record may stand in the file; the next must not follow it.
		return 0, errors.Join(fmt.Errorf("append event %s: %w", e.Topic, err), l.file.Truncate(seg.size))
	}
	l.last, seg.last = e.Cursor, e.Cursor
	if e.Sequence != 0 {
		l.sequence, seg.sequence = max(l.sequence, e.Sequence), max(seg.sequence, e.Sequence)
	}
	seg.size += int64(len(rec))
	close(l.grown)
	l.grown = make(chan struct{})
	select {
	case l.dirty <- struct{}{}:
	default:
	}
	return e.Cursor, nil
}

// Cursor returns the cursor given out last: a subscription from it sees what comes next.
func (l *Log) Cursor() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// syncLoop brings appended records to the disk, as many as have gathered with each sync.
func (l *Log) syncLoop() {
	defer l.synced.Done()
	for range l.dirty {
		timer := time.NewTimer(gather)
		select {
		case <-timer.C:
		case <-l.closing: // Close syncs itself
			timer.Stop()
			return
		}
		l.mu.Lock()
		path, sequence := l.segments[len(l.segments)-1].path, l.sequence
		l.mu.Unlock()
		switch err := syncFile(path); {
		case err == nil:
			l.mu.Lock()
			l.settled = max(l.settled, sequence)
			l.mu.Unlock()
		case !errors.Is(err, os.ErrNotExist) && l.opts.OnSyncError != nil:
			l.opts.OnSyncError(err)
		}
	}
}

// syncFile opens path anew: the writer's own descriptor may be closed at any time.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Close syncs and closes the log and ends every subscription.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	close(l.grown)
	err := errors.Join(l.file.Sync(), l.file.Close())
	l.mu.Unlock()
	close(l.closing)
	close(l.dirty)
	l.synced.Wait()
	if err != nil {
		return fmt.Errorf("close event log %s: %w", l.dir, err)
	}
	return nil
}

// Subscribe returns a subscription to what comes after cursor. One that is older than what the
// log keeps is errdefs.ErrOutOfRange; one from the future, errdefs.ErrInvalidArgument.
func (l *Log) Subscribe(cursor uint64) (*Subscription, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if cursor > l.last {
		return nil, fmt.Errorf("subscribe after %d: the log ends at %d: %w", cursor, l.last, errdefs.ErrInvalidArgument)
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
	return fmt.Errorf("read events after %d: events up to %d are no longer kept; subscribe again after it and take stock: %w",
		cursor, dropped, errdefs.ErrOutOfRange)
}

// nextSegment returns the segment that holds the first event after cursor and how much of it may
// be read; nil and a channel that closes on news when there is none yet.
func (l *Log) nextSegment(cursor uint64) (*segment, int64, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, 0, nil, fmt.Errorf("read events: log is closed: %w", errdefs.ErrUnavailable)
	}
	if cursor < l.dropped {
		return nil, 0, nil, outOfRange(cursor, l.dropped)
	}
	for _, s := range l.segments {
		if s.last > cursor {
			return s, s.size, nil, nil
		}
	}
	return nil, 0, l.grown, nil
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
