package content

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	digest "github.com/opencontainers/go-digest"
)

// The two checkpoint files that an ingest may have.
const (
	// stateFile is valid during this boot of the machine: it survives the process, but not a power loss.
	stateFile = "state"
	// syncedFile was written after its data had been synced, and is synced itself.
	syncedFile = "synced"
)

// tailSize is the number of bytes before a checkpoint's offset that are compared when it is used.
const tailSize = 4096

// checkpoint is the running digest of the first Offset bytes of an ingest. On disk it is
// a line of JSON, followed by a line with its SHA-256 in hex.
type checkpoint struct {
	Algorithm digest.Algorithm `json:"algorithm"`
	Offset    int64            `json:"offset"`
	// Hash is the state of Go's implementation of the algorithm.
	Hash []byte `json:"hash"`
	// Tail is the SHA-256 of the last bytes before Offset, at most tailSize.
	Tail []byte `json:"tail"`
	// Boot is the boot of the machine in which it was created.
	Boot string `json:"boot,omitempty"`
}

func encodeCheckpoint(c checkpoint) ([]byte, error) {
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return append(append(raw, '\n'), checksum(raw)...), nil
}

// checksum returns the second line.
func checksum(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:]) + "\n"
}

// parseCheckpoint parses a checkpoint file. Any difference from what encodeCheckpoint writes is
// an error.
func parseCheckpoint(raw []byte) (checkpoint, error) {
	var c checkpoint
	line, sum, ok := bytes.Cut(raw, []byte("\n"))
	if !ok || string(sum) != checksum(line) {
		return c, errors.New("parse checkpoint: checksum does not match")
	}
	if err := json.Unmarshal(line, &c); err != nil {
		return checkpoint{}, fmt.Errorf("parse checkpoint: %w", err)
	}
	if c.Offset <= 0 || len(c.Tail) != sha256.Size {
		return checkpoint{}, fmt.Errorf("parse checkpoint: offset %d, tail of %d bytes", c.Offset, len(c.Tail))
	}
	if _, err := c.restore(c.Algorithm); err != nil {
		return checkpoint{}, err
	}
	return c, nil
}

// restore returns the state of the hash after Offset bytes.
func (c *checkpoint) restore(a digest.Algorithm) (hash.Hash, error) {
	if c.Algorithm != a || !a.Available() {
		return nil, fmt.Errorf("restore checkpoint: algorithm %.16q, want %s", c.Algorithm, a)
	}
	h := a.Hash()
	u, ok := h.(encoding.BinaryUnmarshaler)
	if !ok {
		return nil, fmt.Errorf("restore checkpoint: %s has no state", a)
	}
	if err := u.UnmarshalBinary(c.Hash); err != nil {
		return nil, fmt.Errorf("restore checkpoint: %w", err)
	}
	return h, nil
}

// takeCheckpoint returns a checkpoint of the data that was written and hashed.
func takeCheckpoint(f io.ReaderAt, h hash.Hash, a digest.Algorithm, offset int64, boot string) (checkpoint, error) {
	c := checkpoint{Algorithm: a, Offset: offset, Boot: boot}
	m, ok := h.(encoding.BinaryMarshaler)
	if !ok {
		return c, fmt.Errorf("take checkpoint: %s has no state", a)
	}
	var err error
	if c.Hash, err = m.MarshalBinary(); err != nil {
		return c, fmt.Errorf("take checkpoint: %w", err)
	}
	c.Tail, err = tailSum(f, offset)
	return c, err
}

// tailSum returns the SHA-256 of the last bytes before offset.
func tailSum(f io.ReaderAt, offset int64) ([]byte, error) {
	n := min(offset, tailSize)
	buf := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(f, offset-n, n), buf); err != nil {
		return nil, fmt.Errorf("read the end of an ingest: %w", err)
	}
	sum := sha256.Sum256(buf)
	return sum[:], nil
}

// fits reports whether the checkpoint matches this data.
func (c *checkpoint) fits(f io.ReaderAt, size int64) bool {
	if c.Offset > size {
		return false
	}
	sum, err := tailSum(f, c.Offset)
	return err == nil && bytes.Equal(sum, c.Tail)
}

// loadCheckpoint returns an ingest's checkpoint from one of its files if it can be
// trusted: the file is intact, its data is present, and, if it was not
// synced, it is of this boot. Any other is treated as missing: the data can be read.
func (s *Store) loadCheckpoint(dir, name string, f io.ReaderAt, size int64) (checkpoint, bool, error) {
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return checkpoint{}, false, nil
	}
	if err != nil {
		return checkpoint{}, false, err
	}
	c, err := parseCheckpoint(raw)
	if err != nil || name == stateFile && (s.boot == "" || c.Boot != s.boot) || !c.fits(f, size) {
		return checkpoint{}, false, nil //nolint:nilerr // a corrupt one is treated as missing
	}
	return c, true, nil
}
