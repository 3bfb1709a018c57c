package events

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/durable"
	"github.com/cleatproject/cleat/internal/inject"
)

// faults is a disk whose steps fail as long as fail returns an error.
type faults struct {
	mu   sync.Mutex
	fail func(inject.Op) error
	// reports are the log's reports about holding events.
	reports []Hold
	changed chan struct{}
}

func newFaults(fail func(inject.Op) error) *faults {
	return &faults{fail: fail, changed: make(chan struct{}, 1000)}
}

func (f *faults) set(fail func(inject.Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

func (f *faults) options() Options {
	return Options{
		Segment: 400, retry: time.Millisecond,
		FS: inject.FS{Under: durable.OS{}, At: func(op inject.Op) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.fail == nil {
				return nil
			}
			return f.fail(op)
		}},
		OnHold: func(h Hold) {
			f.mu.Lock()
			f.reports = append(f.reports, h)
			f.mu.Unlock()
			f.changed <- struct{}{}
		},
	}
}

// written waits until the log reports that it has written the held events.
func (f *faults) written(t *testing.T) Hold {
	t.Helper()
	for {
		f.mu.Lock()
		last := f.reports[len(f.reports)-1]
		f.mu.Unlock()
		if last.Cause == nil {
			return last
		}
		select {
		case <-f.changed:
		case <-t.Context().Done():
			t.Fatal("events were never written")
		}
	}
}

func always(err error) func(inject.Op) error { return func(inject.Op) error { return err } }

// verbs fails the named steps.
func verbs(err error, names ...string) func(inject.Op) error {
	return func(op inject.Op) error {
		for _, n := range names {
			if op.Verb == n {
				return err
			}
		}
		return nil
	}
}

// diskFaults are the ways in which a disk takes no writes.
func diskFaults() map[string]func(inject.Op) error {
	return map[string]func(inject.Op) error{
		"full":            verbs(syscall.ENOSPC, "write", "mkdir"),
		"no inodes":       verbs(syscall.ENOSPC, "create", "mkdir"),
		"read-only":       always(syscall.EROFS),
		"I/O errors":      always(syscall.EIO),
		"no truncation":   verbs(syscall.EIO, "write", "truncate"),
		"quota":           verbs(syscall.EDQUOT, "write", "create"),
		"directory syncs": verbs(syscall.EIO, "syncdir"),
		"renames":         verbs(syscall.EIO, "rename"),
	}
}

func TestLog_FaultyDisk_WritesHeldEventsLater(t *testing.T) {
	for name, fault := range diskFaults() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, dir, Options{Segment: 400})
			before := add(t, l, 0, 10)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			f := newFaults(fault)
			l = open(t, dir, f.options()) // on the faulty disk
			if l.Written() {
				t.Error("the log claims to have written to a disk that takes no writes")
			}
			if first := add(t, l, 10, 20); first <= before {
				t.Errorf("cursor %d after %d", first, before)
			}
			live := subscribe(t, l, 0)
			expect(t, live, 0, 20)
			f.set(nil)
			if got := f.written(t); got.Events != 10 || got.Lost != 0 {
				t.Errorf("report %+v, want 10 events", got)
			}
			add(t, l, 20, 30)
			f.set(fault) // and in the middle of a run
			add(t, l, 30, 45)
			expect(t, live, 20, 45)
			f.set(nil)
			f.written(t)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = open(t, dir, Options{})
			expect(t, subscribe(t, l, 0), 0, 45)
			expect(t, subscribe(t, l, before), 10, 45)
		})
	}
}

// It fails each step of a run once, one run per step.
func TestLog_OneFailingStep_LosesNothing(t *testing.T) {
	for n := 0; ; n++ {
		dir, step := t.TempDir(), -1
		f := newFaults(nil)
		f.fail = func(inject.Op) error {
			if step++; step == n {
				return syscall.EIO
			}
			return nil
		}
		l := open(t, dir, f.options())
		add(t, l, 0, 25)
		s := subscribe(t, l, 0)
		expect(t, s, 0, 25)
		f.set(nil)
		if !l.Written() {
			f.written(t)
		}
		if err := errors.Join(s.Close(), l.Close()); err != nil {
			t.Fatalf("step %d: %v", n, err)
		}
		l = open(t, dir, Options{})
		expect(t, subscribe(t, l, 0), 0, 25)
		if step < n {
			return
		}
	}
}

func TestCursors_FullDisk_AreUnique(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{})
	last := add(t, l, 0, 5)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for i := range 4 { // each of these loses its events
		opts := newFaults(always(syscall.ENOSPC)).options()
		opts.Now = func() time.Time { return began.Add(time.Duration(i) * time.Second) }
		l = open(t, dir, opts)
		if first, err := l.Append(event(i)); err != nil || first <= last {
			t.Fatalf("cursor %d after %d, %v", first, last, err)
		}
		last = add(t, l, 5, 100)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l = open(t, dir, Options{Now: func() time.Time { return began.Add(time.Minute) }})
	if first := add(t, l, 5, 6); first <= last {
		t.Fatalf("cursor %d after %d", first, last)
	}
}

func TestHeldEvents_BeyondLimit_AreLostAndReported(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Options{Segment: 200})
	start := add(t, l, 0, 10)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	f := newFaults(always(syscall.ENOSPC))
	opts := f.options()
	opts.Memory = 2000
	l = open(t, dir, opts)
	slow := subscribe(t, l, start)
	add(t, l, 10, 200)
	if _, err := slow.Next(t.Context()); !errors.Is(err, errdefs.ErrOutOfRange) {
		t.Errorf("a subscription that missed events: %v", err)
	}
	n := kept(t, l)
	if n == 0 || n >= 190 {
		t.Errorf("%d of 190 events are held", n)
	}
	oldest := l.Oldest()
	f.set(nil)
	if got := f.written(t); got.Events != uint64(n) || got.Lost != uint64(190-n) {
		t.Errorf("report %+v, want %d written, %d lost", got, n, 190-n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, Options{})
	if _, err := l.Subscribe(start); !errors.Is(err, errdefs.ErrOutOfRange) {
		t.Errorf("subscribe before the gap, after reopening: %v", err)
	}
	if l.Oldest() != oldest {
		t.Errorf("oldest is %d, was %d", l.Oldest(), oldest)
	}
	expect(t, subscribe(t, l, oldest), 200-n, 200)
}

func TestSequence_SettlesOnceOnDisk(t *testing.T) {
	f := newFaults(nil)
	l := open(t, t.TempDir(), f.options())
	f.set(always(syscall.ENOSPC))
	sequenced(t, l, 5)
	if last, settled := l.Sequence(); last != 5 || settled != 0 {
		t.Errorf("on a full disk: last %d, settled %d", last, settled)
	}
	f.set(nil)
	f.written(t)
	for {
		if _, settled := l.Sequence(); settled == 5 {
			return
		}
		add(t, l, 0, 1)
	}
}

func TestSequence_FailedSync_DoesNotSettle(t *testing.T) {
	f := newFaults(nil)
	failed := make(chan struct{}, 10)
	opts := f.options()
	opts.OnError = func(error) { failed <- struct{}{} }
	l := open(t, t.TempDir(), opts)
	f.set(verbs(syscall.EIO, "sync"))
	sequenced(t, l, 5)
	<-failed
	f.set(nil)
	add(t, l, 0, 50) // several segments, which are synced when they end
	if _, settled := l.Sequence(); settled != 0 {
		t.Errorf("settled %d after a failed sync", settled)
	}
}

func TestTimeStamps_DoNotDecrease(t *testing.T) {
	now := time.Unix(1000, 0).UTC()
	dir := t.TempDir()
	opts := Options{Now: func() time.Time { return now }}
	l := open(t, dir, opts)
	stamps := func(s *Subscription, want ...int64) {
		t.Helper()
		for _, w := range want {
			e, err := s.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if !e.Timestamp.Equal(time.Unix(w, 0)) {
				t.Errorf("time stamp %v, want %d", e.Timestamp.Unix(), w)
			}
		}
	}
	at := func(l *Log, seconds int64) {
		t.Helper()
		if _, err := l.Append(Event{Timestamp: time.Unix(seconds, 0), Namespace: "n", Topic: "/t", TypeURL: fmt.Sprint(seconds)}); err != nil {
			t.Fatal(err)
		}
	}
	s := subscribe(t, l, l.Cursor())
	at(l, 900)
	at(l, 990)
	at(l, 980)   // a shim's, sent late
	at(l, 99999) // a sender whose clock is wrong
	at(l, 995)
	stamps(s, 900, 990, 990, 1000, 1000)
	if err := errors.Join(s.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	now = time.Unix(970, 0) // the clock is set back a little
	l = open(t, dir, opts)
	s = subscribe(t, l, l.Cursor())
	at(l, 970)
	now = time.Unix(500, 0) // and a lot
	at(l, 500)
	at(l, 490)
	stamps(s, 1000, 500, 500)
}
