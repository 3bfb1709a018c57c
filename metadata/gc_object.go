package metadata

import "fmt"

// Kind is the noun of an object.
type Kind uint8

// The kinds that take part in garbage collection.
const (
	KindImage Kind = iota + 1
	KindContainer
	KindLease
	KindContent
	KindSnapshot
	KindSandbox
)

// String returns the word used in listings.
func (k Kind) String() string {
	switch k {
	case KindImage:
		return "image"
	case KindContainer:
		return "container"
	case KindLease:
		return "lease"
	case KindContent:
		return "content"
	case KindSnapshot:
		return "snapshot"
	case KindSandbox:
		return "sandbox"
	default:
		return "unknown"
	}
}

// Object names a record of a namespace.
type Object struct {
	Namespace string
	Kind      Kind
	// Set is the snapshotter of a snapshot, and empty for other kinds.
	Set string
	// Name is the key of the record: an image's name, a digest, a snapshot's key.
	Name string
}

// String returns the object for messages and logs.
func (o Object) String() string {
	if o.Set != "" {
		return fmt.Sprintf("%s %s/%s", o.Kind, o.Set, o.Name)
	}
	return fmt.Sprintf("%s %s", o.Kind, o.Name)
}

// name is an Object without its namespace: the name of a node in a namespace's graph.
type name struct {
	kind     Kind
	set, key string
}

func (n name) object(ns string) Object {
	return Object{Namespace: ns, Kind: n.kind, Set: n.set, Name: n.key}
}

func (o Object) name() name { return name{kind: o.Kind, set: o.Set, key: o.Name} }

// noun is what the collector must know of one kind of record. To add another noun: a Kind, a line
// in nouns, and a function that reads its references.
type noun struct {
	kind   Kind
	bucket string
	// split reports that the bucket holds one bucket per snapshotter.
	split bool
	// scan reads a record: whether it is a root, and what it refers to.
	scan func(*visit, []byte) error
	// remove deletes a record that nothing refers to. Nil: such a record is always a root.
	remove func(tx *Tx, o Object) (Removed, error)
}

func nouns() []noun {
	return []noun{
		{kind: KindImage, bucket: imagesBucket, scan: (*visit).image, remove: removeImage},
		{kind: KindContainer, bucket: containersBucket, scan: (*visit).container},
		{kind: KindLease, bucket: leasesBucket, scan: (*visit).lease, remove: removeLease},
		{kind: KindContent, bucket: blobsBucket, scan: (*visit).blob, remove: removeBlob},
		{kind: KindSnapshot, bucket: snapshotsBucket, split: true, scan: (*visit).snapshot, remove: removeSnapshot},
		{kind: KindSandbox, bucket: sandboxesBucket, scan: (*visit).sandbox},
	}
}

// nounOf returns the noun of a kind.
func nounOf(k Kind) (noun, bool) {
	for _, n := range nouns() {
		if n.kind == k {
			return n, true
		}
	}
	return noun{}, false
}

// path returns the bucket, below the namespace's, that holds an object.
func (n *noun) path(set string) []string {
	if n.split {
		return []string{n.bucket, set}
	}
	return []string{n.bucket}
}
