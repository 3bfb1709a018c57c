package runtime

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/containerd/errdefs"
)

func TestState_OfEveryKind_IsReadBack(t *testing.T) {
	s := newScene(t)
	m := s.manager()
	b := s.bundle(m, bundleState{})
	for p := range numPhases {
		for bits := range 16 {
			want := bundleState{
				Version: stateVersion, Phase: p,
				Committed: bits&1 != 0, Held: bits&2 != 0, CleanedUp: bits&4 != 0, Revived: bits&8 != 0,
			}
			must(t, b.writeState(want))
			if info, err := os.Stat(b.file(stateFile)); err != nil || info.Size() != stateSize {
				t.Fatalf("%+v: size %d, %v", want, info.Size(), err)
			}
			if want.Held { // a daemon that starts has lost the event
				want.Phase = min(want.Phase, reported)
			}
			if got, err := b.readState(); err != nil || got != want {
				t.Errorf("%+v, %v, want %+v", got, err, want)
			}
		}
	}
}

func TestState_OfRemovedBundle_IsNotWritten(t *testing.T) {
	s := newScene(t)
	b := s.manager().bundleOf("ns", "c")
	if err := b.writeState(bundleState{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("write: %v", err)
	}
	if b.has("") {
		t.Error("a bundle was made")
	}
}

// TestState_OfEarlierVersion reads the markers that a cleatd without state files left, and keeps the state in a
// file from then on.
func TestState_OfEarlierVersion(t *testing.T) {
	for name, tc := range map[string]struct {
		markers []string
		want    bundleState
	}{
		"being created":    {[]string{pendingMarker}, bundleState{Phase: unreported}},
		"created":          {[]string{pendingMarker, createdMarker}, bundleState{Phase: reported}},
		"committed":        {nil, bundleState{Committed: true, Phase: reported}},
		"exited":           {[]string{exitMarker}, bundleState{Committed: true, Phase: exitReported}},
		"exited, held":     {[]string{heldMarker}, bundleState{Committed: true, Phase: reported, Held: true}},
		"shim died":        {[]string{exitMarker, cleanedMarker}, bundleState{Committed: true, Phase: exitReported, CleanedUp: true}},
		"shim died, held":  {[]string{heldMarker, cleanedMarker}, bundleState{Committed: true, Phase: reported, Held: true, CleanedUp: true}},
		"shim was empty":   {[]string{cleanedMarker, deletedMarker}, bundleState{Committed: true, Phase: deleteReported, CleanedUp: true}},
		"deleted":          {[]string{exitMarker, deletedMarker}, bundleState{Committed: true, Phase: deleteReported}},
		"shim was revived": {[]string{revivedMarker}, bundleState{Committed: true, Phase: reported, Revived: true}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			b := s.bundle(s.manager())
			must(t, os.Remove(b.file(stateFile)))
			for _, f := range tc.markers {
				must(t, os.WriteFile(b.file(f), nil, 0o600))
			}
			tc.want.Version = stateVersion
			if got, err := b.loadState(); err != nil || got != tc.want {
				t.Fatalf("%+v, %v, want %+v", got, err, tc.want)
			}
			for _, f := range tc.markers {
				must(t, os.Remove(b.file(f)))
			}
			if got, err := b.readState(); err != nil || got != tc.want {
				t.Errorf("without the markers: %+v, %v, want %+v", got, err, tc.want)
			}
		})
	}
}

// TestRecover_DamagedState_KeepsTask has a daemon find a file that it cannot use.
func TestRecover_DamagedState_KeepsTask(t *testing.T) {
	for name, data := range map[string]string{"empty": "", "cut short": `{"version":1`, "later": `{"version":2}`, "phase": `{"version":1,"phase":"x"}`} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			m := s.manager()
			b := s.bundle(m)
			must(t, os.WriteFile(b.file(stateFile), []byte(data), 0o600))
			if _, err := b.readState(); !errdefs.IsDataLoss(err) {
				t.Errorf("read: %v", err)
			}
			s.shim(true, refuse)
			must(t, m.Recover(nil))
			s.task(m, "the shim is adopted", isReady)
		})
	}
}

func FuzzDecodeState(f *testing.F) {
	for _, s := range []bundleState{{}, {Committed: true, Phase: deleteReported, Held: true, CleanedUp: true, Revived: true}} {
		data, err := s.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeState(data)
		if err != nil {
			return
		}
		again, err := s.encode()
		if err != nil || len(again) != stateSize {
			t.Fatalf("%+v: %d bytes, %v", s, len(again), err)
		}
		if got, err := decodeState(again); err != nil || got.Phase != s.Phase || got.Committed != s.Committed {
			t.Errorf("%+v becomes %+v, %v", s, got, err)
		}
	})
}
