package content

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	digest "github.com/opencontainers/go-digest"
)

// metaVersion is the version of an ingest's meta file that this code reads and writes.
const metaVersion = 1

// ingestMeta is the file meta of an ingest, as JSON: the attributes that do not change with each write.
type ingestMeta struct {
	Version  int           `json:"version"`
	Ref      string        `json:"ref"`
	Expected digest.Digest `json:"expected,omitempty"`
	Total    int64         `json:"total,omitempty"`
	// StartedAt is when the ingest was created.
	StartedAt time.Time `json:"startedAt"`
	// Boot is the boot of the machine in which the unsynced data was written.
	Boot string `json:"boot,omitempty"`
}

func encodeMeta(m ingestMeta) ([]byte, error) {
	m.Version = metaVersion
	return json.Marshal(m)
}

// parseMeta parses a meta file. A truncated or corrupt one is an error: after a power
// loss it may contain anything.
func parseMeta(raw []byte) (ingestMeta, error) {
	var m ingestMeta
	d := json.NewDecoder(bytes.NewReader(raw))
	if err := d.Decode(&m); err != nil {
		return ingestMeta{}, fmt.Errorf("parse meta: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return ingestMeta{}, fmt.Errorf("parse meta: more than one value")
	}
	switch {
	case m.Version != metaVersion:
		return ingestMeta{}, fmt.Errorf("parse meta: version %d", m.Version)
	case validateRef(m.Ref) != nil || !utf8.ValidString(m.Ref):
		return ingestMeta{}, fmt.Errorf("parse meta: ref %.64q", m.Ref)
	case m.Total < 0:
		return ingestMeta{}, fmt.Errorf("parse meta: total %d", m.Total)
	case m.Expected != "" && validateDigest(m.Expected) != nil:
		return ingestMeta{}, fmt.Errorf("parse meta: expected %.160q", m.Expected)
	}
	return m, nil
}
