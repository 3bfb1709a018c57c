package events

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func open(t *testing.T, dir string, opts Options) *Log {
	t.Helper()
	l, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func event(i int) Event {
	return Event{
		Timestamp: time.Unix(int64(i), 5).UTC(), Namespace: "default", Topic: "/tasks/exit",
		TypeURL: "containerd.events.TaskExit", Value: fmt.Appendf(nil, "event %d", i),
	}
}

func add(t *testing.T, l *Log, from, to int) (last uint64) {
	t.Helper()
	for i := from; i < to; i++ {
		c, err := l.Append(event(i))
		if err != nil {
			t.Fatal(err)
		}
		if c <= last {
			t.Fatalf("cursor %d after %d", c, last)
		}
		last = c
	}
	return last
}

func expect(t *testing.T, s *Subscription, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		got, err := s.Next(t.Context())
		if err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
		want := event(i)
		if string(got.Value) != string(want.Value) || !got.Timestamp.Equal(want.Timestamp) ||
			got.Topic != want.Topic || got.Namespace != want.Namespace || got.TypeURL != want.TypeURL {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	}
}

func subscribe(t *testing.T, l *Log, cursor uint64) *Subscription {
	t.Helper()
	s, err := l.Subscribe(cursor)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestSubscription_ReadsAcrossSegmentsAndReopening(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{Segment: 200})
	start := l.Cursor()
	middle := add(t, l, 0, 10)
	add(t, l, 10, 20)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, Options{Segment: 200})
	add(t, l, 20, 30)
	expect(t, subscribe(t, l, start), 0, 30)
	expect(t, subscribe(t, l, middle), 10, 30)
}

func TestSubscription_WhileWriting_SeesEachEventOnce(t *testing.T) {
	l := open(t, t.TempDir(), Options{Segment: 1000})
	const n = 2000
	var wg sync.WaitGroup
	for range 4 {
		s := subscribe(t, l, 0)
		wg.Go(func() { expect(t, s, 0, n) })
	}
	add(t, l, 0, n)
	wg.Wait()
}

func TestOpen_CutsTornTail(t *testing.T) {
	for cut := int64(1); cut < 40; cut += 3 {
		dir := t.TempDir()
		l := open(t, dir, Options{})
		add(t, l, 0, 3)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		segs, err := filepath.Glob(filepath.Join(dir, "*.log"))
		if err != nil || len(segs) != 1 {
			t.Fatal(segs, err)
		}
		info, err := os.Stat(segs[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(segs[0], info.Size()-cut); err != nil {
			t.Fatal(err)
		}
		l = open(t, dir, Options{})
		add(t, l, 3, 4)
		s := subscribe(t, l, 0)
		expect(t, s, 0, 2)
		expect(t, s, 3, 4)
	}
}

func TestCursors_AreUnique(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	last := add(t, l, 0, 5)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// A power loss that took the whole segment.
	segs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range segs {
		if err := os.Remove(s); err != nil {
			t.Fatal(err)
		}
	}
	l = open(t, dir, Options{})
	if next := add(t, l, 5, 6); next <= last {
		t.Fatalf("cursor %d was given out again as %d", last, next)
	}
}

func TestOldEvents_AreDroppedAndReported(t *testing.T) {
	l := open(t, t.TempDir(), Options{Segment: 200, Keep: 1000})
	slow := subscribe(t, l, 0)
	add(t, l, 0, 1)
	expect(t, slow, 0, 1)
	add(t, l, 1, 200)
	if _, err := l.Subscribe(0); !errors.Is(err, errdefs.ErrOutOfRange) {
		t.Fatalf("subscribe to what is gone: %v", err)
	}
	var err error
	for err == nil { // it may still read a segment that it has open
		_, err = slow.Next(t.Context())
	}
	if !errors.Is(err, errdefs.ErrOutOfRange) {
		t.Fatalf("slow subscription: %v", err)
	}
	expect(t, subscribe(t, l, l.Oldest()), 200-kept(t, l), 200)
}

func kept(t *testing.T, l *Log) int {
	t.Helper()
	s := subscribe(t, l, l.Oldest())
	for n := 0; ; n++ {
		if s.after == l.Cursor() {
			return n
		}
		if _, err := s.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNext_EndsWithContextAndLog(t *testing.T) {
	l := open(t, t.TempDir(), Options{})
	s := subscribe(t, l, l.Cursor())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := s.Next(t.Context())
		done <- err
	}()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, errdefs.ErrUnavailable) {
		t.Fatal(err)
	}
	if _, err := l.Append(event(0)); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Fatal(err)
	}
}

func TestSubscribe_FutureCursor_IsRefused(t *testing.T) {
	l := open(t, t.TempDir(), Options{})
	if _, err := l.Subscribe(l.Cursor() + 1); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Fatal(err)
	}
}

func sequenced(t *testing.T, l *Log, sequence uint64) {
	t.Helper()
	e := event(0)
	e.Sequence = sequence
	if _, err := l.Append(e); err != nil {
		t.Fatal(err)
	}
}

func TestSequence_AfterReopening(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	for _, n := range []uint64{3, 4, 9} {
		sequenced(t, l, n)
	}
	add(t, l, 0, 3) // without a sequence
	if last, settled := l.Sequence(); last != 9 || settled > 9 {
		t.Errorf("last %d, settled %d", last, settled)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, Options{})
	if last, settled := l.Sequence(); last != 9 || settled != 9 {
		t.Errorf("after reopening: last %d, settled %d", last, settled)
	}
	s := subscribe(t, l, 0)
	for _, n := range []uint64{3, 4, 9} {
		if e, err := s.Next(t.Context()); err != nil || e.Sequence != n {
			t.Errorf("read %d, %v; want %d", e.Sequence, err, n)
		}
	}
}

// It appends so many events without a sequence that the segment that recorded
// the last sequence is dropped.
func TestSequence_OutlivesSegment(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{Segment: 200, Keep: 1000})
	sequenced(t, l, 7)
	first := l.Cursor()
	for i := 0; l.Oldest() < first; i++ {
		add(t, l, i, i+1)
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = open(t, dir, Options{Segment: 200, Keep: 1000})
		if last, settled := l.Sequence(); last != 7 || settled != 7 {
			t.Fatalf("last %d, settled %d", last, settled)
		}
	}
}

func TestSequence_SettlesInBackground(t *testing.T) {
	l := open(t, t.TempDir(), Options{})
	sequenced(t, l, 1)
	for {
		if _, settled := l.Sequence(); settled == 1 {
			return
		}
		add(t, l, 0, 1) // nothing else shows the sync
	}
}

func FuzzDecode(f *testing.F) {
	rec, err := encode(event(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(rec)
	f.Add(rec[:10])
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := decode(data)
		if err != nil {
			return
		}
		again, err := encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decode(again); err != nil || back.Cursor != e.Cursor || back.Topic != e.Topic || back.Sequence != e.Sequence {
			t.Fatalf("%+v became %+v: %v", e, back, err)
		}
	})
}
