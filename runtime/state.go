package runtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
)

const (
	// stateFile holds the state of a bundle as one JSON object of stateSize bytes, filled up with spaces. Its size
	// never changes, so that it is replaced by a single write: a daemon that is killed leaves the old or the new
	// state, and a full disk takes it.
	stateFile    = "cleat-state.json"
	stateSize    = 256
	stateVersion = 1
)

// bundleState is what the next daemon has to know of a task or sandbox besides what its shim and the files of its
// bundle say. The zero value is that of a new bundle.
type bundleState struct {
	Version int `json:"version"`
	// Committed is set once the request that made the bundle is answered. A bundle that is not committed at start
	// is removed.
	Committed bool `json:"committed,omitempty"`
	// Phase is how much of the task's life was published.
	Phase phase `json:"phase"`
	// Held is set if the published exit was not on disk when it was published: the next daemon publishes it again.
	Held bool `json:"held,omitempty"`
	// CleanedUp is set once neither the OCI runtime nor a shim has anything left of the container.
	CleanedUp bool `json:"cleanedUp,omitempty"`
	// Revived is set while a shim was started in place of a dead one and has not reported that it has the container.
	Revived bool `json:"revived,omitempty"`
}

// encode returns the content of the file.
func (s bundleState) encode() ([]byte, error) {
	s.Version = stateVersion
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	if len(data) >= stateSize {
		return nil, fmt.Errorf("encode state: %d bytes, at most %d fit: %w", len(data), stateSize-1, errdefs.ErrInternal)
	}
	padded := append(data, bytes.Repeat([]byte(" "), stateSize-1-len(data))...)
	return append(padded, '\n'), nil
}

// decodeState is the reverse of encode.
func decodeState(data []byte) (bundleState, error) {
	var s bundleState
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("decode state: %w: %w", err, errdefs.ErrDataLoss)
	}
	if s.Version < 1 || s.Version > stateVersion {
		return s, fmt.Errorf("decode state: version %d, want 1 to %d: %w", s.Version, stateVersion, errdefs.ErrDataLoss)
	}
	if s.Held { // and lost since
		s.Phase = min(s.Phase, reported)
	}
	return s, nil
}

// writeState replaces the state. It is os.ErrNotExist if the bundle was removed.
func (b *bundle) writeState(s bundleState) error {
	data, err := s.encode()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(b.file(stateFile), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write state of %s: %w", b.id, err)
	}
	_, err = f.WriteAt(data, 0)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write state of %s: %w", b.id, err)
	}
	return nil
}

// readState returns the state, also of a bundle that an earlier version made.
func (b *bundle) readState() (bundleState, error) {
	data, err := os.ReadFile(b.file(stateFile))
	if errors.Is(err, os.ErrNotExist) {
		return b.markers(), nil
	}
	if err != nil {
		return bundleState{}, fmt.Errorf("read state of %s: %w", b.id, err)
	}
	s, err := decodeState(data)
	if err != nil {
		return s, fmt.Errorf("read state of %s: %w", b.id, err)
	}
	return s, nil
}

// loadState is readState at start, and writes a state that is in markers to the file.
func (b *bundle) loadState() (bundleState, error) {
	s, err := b.readState()
	if err != nil || b.has(stateFile) {
		return s, err
	}
	data, err := s.encode()
	if err != nil {
		return s, err
	}
	if err := b.put(stateFile, data, 0o600); err != nil {
		return s, fmt.Errorf("write state of %s: %w", b.id, err)
	}
	return s, nil
}

// Empty files that earlier versions kept the state in. They are ignored next to a stateFile.
const (
	pendingMarker = "pending"        // not committed
	createdMarker = "create-told"    // the create was published, though the bundle is not committed
	exitMarker    = "exit-told"      // the exit was published
	heldMarker    = "exit-held"      // it was, and is not on disk
	cleanedMarker = "exit-announced" // it was, in place of a dead shim that was cleaned up
	deletedMarker = "delete-told"    // the deletion was published
	revivedMarker = "shim-revived"   // see bundleState.Revived
)

// markers returns the state of a bundle that an earlier version made.
func (b *bundle) markers() bundleState {
	s := bundleState{
		Version: stateVersion, Committed: !b.has(pendingMarker), Held: b.has(heldMarker),
		CleanedUp: b.has(cleanedMarker), Revived: b.has(revivedMarker),
	}
	switch {
	case b.has(deletedMarker):
		s.Phase = deleteReported
	case b.has(exitMarker), b.has(cleanedMarker) && !s.Held:
		s.Phase = exitReported
	case s.Committed, b.has(createdMarker):
		s.Phase = reported
	}
	return s
}
