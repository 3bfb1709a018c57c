package events

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// Subscription reads the log from a cursor. It is not safe for concurrent use; it has to be closed.
type Subscription struct {
	log   *Log
	after uint64 // cursor of the event returned last

	seg    *segment
	file   *os.File
	reader *bufio.Reader
	offset int64 // of the next record in seg
	taken  int64 // bytes of seg that the reader has consumed
	limit  int64 // bytes of seg known to be complete records
}

// Next returns the next event, waiting for it until ctx ends. After the log is closed it returns
// errdefs.ErrUnavailable; if the subscription has fallen behind, errdefs.ErrOutOfRange.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		if s.offset < s.limit {
			e, err := s.read()
			if err != nil {
				return Event{}, fmt.Errorf("read event after %d: %w", s.after, err)
			}
			if e.Cursor <= s.after {
				continue
			}
			s.after = e.Cursor
			return e, nil
		}
		at, err := s.log.next(s.after)
		if err != nil {
			return Event{}, err
		}
		switch {
		case at.held != nil:
			e, err := decode(at.held)
			if err != nil {
				return Event{}, fmt.Errorf("read event after %d: %w", s.after, err)
			}
			s.after = e.Cursor
			return e, nil
		case at.seg == nil:
			if err := wait(ctx, at.news); err != nil {
				return Event{}, err
			}
		default:
			if err := s.enter(at.seg, at.limit); err != nil {
				return Event{}, err
			}
		}
	}
}

// enter continues in seg up to limit.
func (s *Subscription) enter(seg *segment, limit int64) error {
	if seg == s.seg {
		s.limit = limit
		return nil
	}
	if err := s.Close(); err != nil {
		return err
	}
	f, err := os.Open(seg.path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) { // dropped since nextSegment looked
			return outOfRange(s.after, s.log.Oldest())
		}
		return fmt.Errorf("open segment: %w", err)
	}
	s.seg, s.file, s.offset, s.taken, s.limit = seg, f, 0, 0, limit
	s.reader = bufio.NewReaderSize(&bounded{s}, 16<<10)
	return nil
}

// bounded reads the segment, but never beyond the complete records.
type bounded struct{ s *Subscription }

func (b *bounded) Read(p []byte) (int, error) {
	left := b.s.limit - b.s.taken
	if left <= 0 {
		return 0, io.EOF
	}
	n, err := b.s.file.Read(p[:min(int64(len(p)), left)])
	b.s.taken += int64(n)
	return n, err
}

// read decodes the record at the reader's position.
func (s *Subscription) read() (Event, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(s.reader, header[:]); err != nil {
		return Event{}, err
	}
	n, err := bodyLength(header[:])
	if err != nil {
		return Event{}, err
	}
	rec := make([]byte, headerSize+n)
	copy(rec, header[:])
	if _, err := io.ReadFull(s.reader, rec[headerSize:]); err != nil {
		return Event{}, err
	}
	s.offset += int64(len(rec))
	return decode(rec)
}

// Close releases the subscription's resources.
func (s *Subscription) Close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file, s.seg, s.offset, s.taken, s.limit = nil, nil, 0, 0, 0
	return err
}

// scan reads a segment's records, sets its size, sequence, last cursor and last time by the complete ones,
// and cuts off the rest. A failure to do so is not an error: no record follows it there.
func (l *Log) scan(seg *segment) error {
	f, err := os.Open(seg.path)
	if err != nil {
		return fmt.Errorf("scan segment: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	r := bufio.NewReaderSize(f, 256<<10)
	for {
		rec, err := readRecord(r)
		if err != nil {
			break // the end, or the rest of a crash
		}
		e, err := decode(rec)
		if err != nil {
			break
		}
		seg.last, seg.lastTime = e.Cursor, e.Timestamp
		seg.sequence = max(seg.sequence, e.Sequence)
		seg.size += int64(len(rec))
	}
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("scan segment: %w", err)
	}
	if info.Size() > seg.size {
		if err := l.cut(seg); err != nil {
			l.opts.OnError(err)
		}
	}
	return nil
}

// cut removes the bytes after the complete records of a segment.
func (l *Log) cut(seg *segment) error {
	f, err := l.disk.OpenFile(seg.path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("cut segment: %w", err)
	}
	if err := errors.Join(f.Truncate(seg.size), f.Close()); err != nil {
		return fmt.Errorf("cut segment: %w", err)
	}
	return nil
}

// readRecord reads one record's bytes.
func readRecord(r io.Reader) ([]byte, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	n, err := bodyLength(header[:])
	if err != nil {
		return nil, err
	}
	rec := make([]byte, headerSize+n)
	copy(rec, header[:])
	_, err = io.ReadFull(r, rec[headerSize:])
	return rec, err
}
