package metadata

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/metadata/boltfile"
)

// Finding is one problem of a database file.
type Finding struct {
	// Place is the path of a record from the top bucket, or empty if it is about pages.
	Place   string
	Problem string
}

// String returns the finding as one line.
func (f Finding) String() string {
	if f.Place == "" {
		return f.Problem
	}
	return f.Place + ": " + f.Problem
}

// Inspect reads the whole file at path, changes nothing, and returns all problems: pages, seals,
// records that cannot be decoded, inconsistent links between snapshots. A file that a daemon has
// open is ErrUnavailable.
func Inspect(path string) (_ []Finding, err error) {
	f, size, err := openLocked(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	a := account{snapshots: make(map[spot]string), links: make(map[spot]bool)}
	if err := boltfile.Walk(f, size, a.visitor()); err != nil {
		return []Finding{{Problem: err.Error()}}, nil
	}
	a.close()
	return a.findings, nil
}

// inspectWait bounds the wait for the file's lock: a running daemon keeps it.
const inspectWait = 20 * time.Millisecond

func openLocked(path string) (*os.File, int64, error) {
	db := newDB(path, Options{})
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("open metadata: %w", err)
	}
	if err := lockShared(f, inspectWait); err != nil {
		return nil, 0, errors.Join(db.held(), f.Close())
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// account collects the content of a file and its problems.
type account struct {
	inspector
	findings []Finding
	// sealFindings count only if the version has seals, which is known at the end.
	sealFindings []Finding
	records      int
	snapshots    map[spot]string // to the parent
	links        map[spot]bool   // under parent\0key
}

// spot is a key of one snapshotter in a namespace.
type spot struct{ ns, snapshotter, key string }

func (s spot) String() string { return fmt.Sprintf("%.256q", s.ns+"/"+s.snapshotter+"/"+s.key) }

func (a *account) visitor() boltfile.Visitor {
	return boltfile.Visitor{Bucket: a.bucket, Record: a.record, Problem: a.problem}
}

func (a *account) problem(path []string, err error) {
	place := ""
	if len(path) > 1 {
		place = strings.Join(path[1:], "/")
	}
	a.findings = append(a.findings, Finding{place, err.Error()})
}

func (a *account) record(path []string, key, value []byte) {
	a.inspector.record(path, key, value)
	if len(path) == 0 || path[0] != rootBucket || len(path) == 1 && string(key) == schemaKey {
		return
	}
	a.records++
	at := place(path, key)
	record, err := scopeOf(path[1:]...).open(string(key), value)
	if err != nil {
		a.sealFindings = append(a.sealFindings, Finding{at, err.Error()})
		record = value
	}
	parent, err := decodeRecord(path, string(key), record)
	if err != nil {
		a.findings = append(a.findings, Finding{at, err.Error()})
	}
	if len(path) != 5 {
		return
	}
	switch where := (spot{path[2], path[4], string(key)}); path[3] {
	case snapshotsBucket:
		a.snapshots[where] = parent
	case childrenBucket:
		a.links[where] = true
	}
}

// close adds the findings that need all of the file.
func (a *account) close() {
	if a.schema >= sealedSchema || a.schema == 0 {
		a.findings = append(a.findings, a.sealFindings...)
	}
	a.broken = nil // among the findings by now
	if err := a.verdict(); err != nil {
		a.findings = append(a.findings, Finding{Problem: err.Error()})
	}
	if a.schema > schemaVersion {
		a.findings = append(a.findings, Finding{Problem: fmt.Sprintf("written by a newer cleatd (schema %d, latest known %d)", a.schema, schemaVersion)})
	}
	a.compareLinks()
}

// compareLinks checks that snapshots and the links from their parents agree.
func (a *account) compareLinks() {
	for at, parent := range a.snapshots {
		if parent == "" {
			continue
		}
		if _, ok := a.snapshots[spot{at.ns, at.snapshotter, parent}]; !ok {
			a.findings = append(a.findings, Finding{at.String(), fmt.Sprintf("parent %.128q has no record", parent)})
		}
		link := spot{at.ns, at.snapshotter, parent + "\x00" + at.key}
		if !a.links[link] {
			a.findings = append(a.findings, Finding{at.String(), "not listed as a child of its parent"})
		}
		delete(a.links, link)
	}
	for link := range a.links {
		a.findings = append(a.findings, Finding{link.String(), "snapshot of this link has no record"})
	}
}

// decodeRecord decodes a record by its place. For a snapshot it returns the parent.
func decodeRecord(path []string, key string, record []byte) (parent string, err error) {
	if len(path) == 2 && path[1] == outboxBucket {
		return "", decodeEvent(record, &events.Event{})
	}
	if len(path) < 3 {
		return "", nil
	}
	if len(path) == 3 {
		if key == infoKey {
			return "", decodeNamespace(record, &Namespace{})
		}
		return "", nil
	}
	switch path[3] {
	case containersBucket:
		return "", decodeContainer(record, &Container{})
	case sandboxesBucket:
		return "", decodeSandbox(record, &Sandbox{})
	case imagesBucket:
		return "", decodeImage(record, &Image{})
	case leasesBucket:
		return "", decodeLease(record, &Lease{})
	case blobsBucket:
		return "", decodeBlob(record, &Blob{})
	case snapshotsBucket:
		var v Snapshot
		err := decodeSnapshot(record, &v)
		return v.Parent, err
	}
	return "", nil
}
