package events

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// reserveStep is how many cursors are reserved by one durable write.
const reserveStep = 1 << 16

// segment is one file of the log.
type segment struct {
	first uint64 // no record in it has a lower cursor
	last  uint64 // cursor of its last record; 0 while it has none
	path  string
	size  int64 // bytes of complete records
	// sequence is the highest Event.Sequence in it, 0 for none.
	sequence uint64
	// lastTime is the time stamp of its last record, as found at Open.
	lastTime time.Time
}

// load finds the segments and the cursor to continue after, which is beyond every cursor ever
// assigned. Unreadable files are reported and treated as dropped.
func (l *Log) load() {
	for _, name := range l.names() {
		first, err := strconv.ParseUint(strings.TrimSuffix(name, ".log"), 16, 64)
		if err != nil {
			continue // not a segment
		}
		l.last = max(l.last, first-1)
		seg := &segment{first: first, path: filepath.Join(l.dir, name)}
		if err := l.scan(seg); err != nil {
			l.opts.OnError(fmt.Errorf("open event log %s: %w", l.dir, err))
			l.segments = nil
			continue
		}
		if seg.size == 0 {
			if err := l.disk.Remove(seg.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				l.opts.OnError(fmt.Errorf("remove empty segment: %w", err))
			}
			continue
		}
		l.last = max(l.last, seg.last)
		l.lastTime = seg.lastTime
		l.sequence = max(l.sequence, seg.sequence)
		l.segments = append(l.segments, seg)
	}
	l.last = max(l.last, l.readNumber("reserved"))
	l.sequence = max(l.sequence, l.readNumber("sequence"))
	l.settleLoaded()
	l.dropped = l.last
	if len(l.segments) > 0 {
		l.dropped = l.segments[0].first - 1
	}
	// Cursors that an earlier process assigned to events that it could not write are on no disk. They
	// started at its clock, and so are below this one's.
	if now := l.opts.Now().UnixMicro(); now > 0 {
		l.last = max(l.last, uint64(now))
	}
}

// names returns the names of the segments, oldest first: fixed-width hex sorts by value.
func (l *Log) names() (names []string) {
	entries, err := os.ReadDir(l.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.opts.OnError(fmt.Errorf("list event log: %w", err))
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".log") {
			names = append(names, e.Name())
		}
	}
	return names
}

// settleLoaded syncs the end of the last run, which may be in the page cache only.
func (l *Log) settleLoaded() {
	if n := len(l.segments); n > 0 {
		if err := l.disk.SyncFile(l.segments[n-1].path); err != nil {
			l.opts.OnError(err)
			l.doubtful = true
			return
		}
	}
	l.settled = l.sequence
}

// readNumber reads one of the files with a number; 0 if there is none or it cannot be read.
func (l *Log) readNumber(name string) uint64 {
	data, err := os.ReadFile(filepath.Join(l.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	var n uint64
	if err == nil {
		n, err = strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	}
	if err != nil {
		l.opts.OnError(fmt.Errorf("read event log's file %s: %w", name, err))
	}
	return n
}

// beginLocked starts a new segment whose first record has the cursor first.
func (l *Log) beginLocked(first uint64) error {
	if err := l.disk.MkdirAll(l.dir, 0o700); err != nil {
		return fmt.Errorf("create event log: %w", err)
	}
	if err := l.reserveLocked(); err != nil {
		return err
	}
	if len(l.segments) == 0 {
		first = l.dropped + 1 // nothing between is missing
	}
	path := filepath.Join(l.dir, fmt.Sprintf("%016x.log", first))
	// The remains of a failed attempt have no record.
	if err := l.disk.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("begin segment: %w", err)
	}
	f, err := l.disk.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("begin segment: %w", err)
	}
	// A segment that is reported as on disk must be found there.
	if err := l.disk.SyncDir(l.dir); err != nil {
		return errors.Join(fmt.Errorf("begin segment: %w", err), f.Close(), l.disk.Remove(path))
	}
	l.finishLocked()
	l.file = f
	l.segments = append(l.segments, &segment{first: first, path: path})
	return l.dropLocked()
}

// finishLocked syncs and closes the segment that is being written.
func (l *Log) finishLocked() {
	if l.file == nil {
		return
	}
	err := errors.Join(l.file.Sync(), l.file.Close())
	l.file = nil
	if err != nil {
		err = fmt.Errorf("finish segment: %w", err)
	}
	l.syncedLocked(l.writtenLocked(), err)
}

// syncedLocked handles the result of a sync of events up to a sequence. The kernel reports an error
// once, and a later successful sync proves nothing about earlier writes.
func (l *Log) syncedLocked(sequence uint64, err error) {
	if err != nil {
		l.doubtful = l.doubtful || l.writtenLocked() > l.settled
		l.opts.OnError(err)
		return
	}
	if !l.doubtful {
		l.settled = max(l.settled, sequence)
	}
}

// abandonLocked ends the segment that is being written after its complete records, although it has further bytes.
func (l *Log) abandonLocked() {
	l.finishLocked()
	if n := len(l.segments) - 1; l.segments[n].size == 0 { // the next one has its name
		l.segments = l.segments[:n]
	}
}

// writtenLocked returns the highest Event.Sequence in a segment.
func (l *Log) writtenLocked() (n uint64) {
	for _, s := range l.segments {
		n = max(n, s.sequence)
	}
	return n
}

func (l *Log) reserveLocked() error {
	if l.last+1 < l.reserved {
		return nil
	}
	next := l.last + reserveStep
	if err := l.disk.WriteFile(filepath.Join(l.dir, "reserved"), []byte(strconv.FormatUint(next, 10)), 0o600); err != nil {
		return fmt.Errorf("reserve cursors: %w", err)
	}
	l.reserved = next
	return nil
}

// dropLocked drops the oldest segments while the rest still keeps enough, and those before a gap.
func (l *Log) dropLocked() error {
	var total int64
	for _, s := range l.segments {
		total += s.size
	}
	for len(l.segments) > 1 && (total-l.segments[0].size >= l.opts.Keep || l.segments[0].last <= l.dropped) {
		if err := l.keepSequenceLocked(); err != nil {
			return err
		}
		total -= l.segments[0].size
		if err := l.disk.Remove(l.segments[0].path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("drop old segment: %w", err)
		}
		l.segments = l.segments[1:]
		l.dropped = max(l.dropped, l.segments[0].first-1)
	}
	return nil
}

// keepSequenceLocked saves the last sequence if the oldest segment, about to be
// dropped, is the one that records it.
func (l *Log) keepSequenceLocked() error {
	if s := l.segments[0].sequence; s == 0 || s < l.writtenLocked() {
		return nil
	}
	data := strconv.FormatUint(l.segments[0].sequence, 10)
	if err := l.disk.WriteFile(filepath.Join(l.dir, "sequence"), []byte(data), 0o600); err != nil {
		return fmt.Errorf("keep sequence: %w", err)
	}
	return nil
}

// writeLocked writes a record to the segment, a new one if that is full. After an error no part of
// the record is in the log.
func (l *Log) writeLocked(r record) error {
	if l.file == nil || l.segments[len(l.segments)-1].size >= l.opts.Segment {
		if err := l.beginLocked(r.cursor); err != nil {
			return err
		}
	}
	if err := l.reserveLocked(); err != nil {
		return err
	}
	seg := l.segments[len(l.segments)-1]
	if _, err := l.file.Write(r.data); err != nil {
		// A part of the record may be in the file; the next must not follow it.
		if terr := l.file.Truncate(seg.size); terr != nil {
			l.abandonLocked()
		}
		return fmt.Errorf("write event: %w", err)
	}
	seg.last = r.cursor
	seg.sequence = max(seg.sequence, r.sequence)
	seg.size += int64(len(r.data))
	l.unsynced = true
	return nil
}
