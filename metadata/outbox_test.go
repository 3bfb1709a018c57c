package metadata

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/cleatproject/cleat/events"
)

func closeBoth(t *testing.T, db *DB, log *events.Log) {
	t.Helper()
	if err := errors.Join(db.Close(), log.Close()); err != nil {
		t.Fatal(err)
	}
}

// topics reads all that a log holds.
func topics(t *testing.T, log *events.Log) (out []string) {
	t.Helper()
	sub, err := log.Subscribe(log.Oldest())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Close() }()
	end, err := log.Append(events.Event{Topic: "/end"})
	if err != nil {
		t.Fatal(err)
	}
	for {
		e, err := sub.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if e.Cursor == end {
			return out
		}
		if e.Topic != "/end" {
			out = append(out, e.Topic)
		}
	}
}

func say(topic string) func(*Tx) error {
	return func(tx *Tx) error { return tx.Publish("ns", topic, Any{"type", []byte("value")}) }
}

func TestEvents_FollowCommit(t *testing.T) {
	db, log := logged(t, t.TempDir(), nil)
	defer closeBoth(t, db, log)
	boom := errors.New("boom")
	var want []string
	for i := range 20 {
		topic := fmt.Sprint("/", i)
		err := db.Update(context.Background(), func(tx *Tx) error {
			if err := say(topic)(tx); err != nil {
				return err
			}
			if i%3 == 0 {
				return boom
			}
			return nil
		})
		if i%3 == 0 {
			if !errors.Is(err, boom) {
				t.Fatal(err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, topic)
		if got := topics(t, log); !slices.Equal(got, want) { // at once
			t.Fatalf("published %v, want %v", got, want)
		}
	}
}

// TestRolledBackEvents_SharedTransaction lets failing and succeeding updates share commits.
func TestRolledBackEvents_SharedTransaction(t *testing.T) {
	db, log := logged(t, t.TempDir(), nil)
	defer closeBoth(t, db, log)
	boom := errors.New("boom")
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			err := db.Update(context.Background(), func(tx *Tx) error {
				if err := say(fmt.Sprint("/", i))(tx); err != nil {
					return err
				}
				if i%5 == 0 {
					return boom
				}
				return nil
			})
			if (err != nil) != (i%5 == 0) {
				t.Errorf("update %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	got := topics(t, log)
	slices.Sort(got)
	var want []string
	for i := range 200 {
		if i%5 != 0 {
			want = append(want, fmt.Sprint("/", i))
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("published %d events, want %d:\n%v", len(got), len(want), got)
	}
}

// stuck is an outlet that refuses everything while it is stuck.
type stuck struct {
	*events.Log
	stuck bool
}

func (s *stuck) Append(e events.Event) (uint64, error) {
	if s.stuck {
		return 0, errors.New("no space")
	}
	return s.Log.Append(e)
}

// TestEvents_OutliveOutlet has the daemon end between commits and the log, and the log refuse for a
// while.
func TestEvents_OutliveOutlet(t *testing.T) {
	dir := t.TempDir()
	log, err := events.Open(filepath.Join(dir, "events"), events.Options{})
	if err != nil {
		t.Fatal(err)
	}
	out := &stuck{Log: log}
	path := filepath.Join(dir, "meta.db")
	refused := 0
	db, err := OpenWith(path, Options{Outlet: out, OnOutletError: func(error) { refused++ }})
	if err != nil {
		t.Fatal(err)
	}
	update(t, db, say("/1"))
	out.stuck = true
	update(t, db, say("/2"))
	update(t, db, say("/3"))
	if got := topics(t, log); !slices.Equal(got, []string{"/1"}) || refused != 2 {
		t.Fatalf("published %v, refused %d", got, refused)
	}
	out.stuck = false
	update(t, db, say("/4")) // waiting events are delivered first
	out.stuck = true
	update(t, db, say("/5"))
	closeBoth(t, db, log)
	for range 2 { // the second start finds nothing to deliver
		db, log := logged(t, dir, nil)
		if got := topics(t, log); !slices.Equal(got, []string{"/1", "/2", "/3", "/4", "/5"}) {
			t.Fatalf("published %v", got)
		}
		closeBoth(t, db, log)
	}
}

// TestOutbox_Emptied checks the lazy removal of what the log has on disk.
func TestOutbox_Emptied(t *testing.T) {
	dir := t.TempDir()
	db, log := logged(t, dir, nil)
	for i := range 10 {
		update(t, db, say(fmt.Sprint("/", i)))
	}
	closeBoth(t, db, log)
	db, log = logged(t, dir, nil) // opening has all of it on disk
	defer closeBoth(t, db, log)
	update(t, db, func(*Tx) error { return nil })
	view(t, db, func(tx *Tx) error {
		if n := count(tx.root.Bucket([]byte(outboxBucket))); n != 0 {
			t.Errorf("%d events are left in the outbox", n)
		}
		return nil
	})
	update(t, db, say("/new"))
	if got := topics(t, log); len(got) != 11 {
		t.Errorf("published %v", got)
	}
}
