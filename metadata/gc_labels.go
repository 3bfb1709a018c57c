package metadata

import (
	"bytes"
	"strings"
	"time"
)

// The labels that the collector obeys, as containerd publishes them. A reference may be followed by
// "." or "/" and the client's own text, to have several of a kind.
const (
	// LabelRoot keeps an object and what it refers to.
	LabelRoot = "containerd.io/gc.root"
	// LabelFlat on a lease keeps its resources without what their labels refer to.
	LabelFlat = "containerd.io/gc.flat"
	// LabelRefContent refers to a blob by its digest.
	LabelRefContent = "containerd.io/gc.ref.content"
	// LabelRefSnapshot, with the name of a snapshotter added, refers to a snapshot.
	LabelRefSnapshot = "containerd.io/gc.ref.snapshot."

	labelGC    = "containerd.io/gc."
	labelRef   = "ref."
	labelBackR = "bref."
)

// label reads one entry of a map of labels. other receives the labels for the collector that are
// not references.
func (v *visit) label(raw []byte, other func(key, text []byte)) error {
	key, text, err := entry(raw)
	if err != nil {
		return err
	}
	rest, ok := bytes.CutPrefix(key, []byte(labelGC))
	if !ok || len(text) == 0 {
		return nil
	}
	if ref, ok := bytes.CutPrefix(rest, []byte(labelRef)); ok {
		v.reference(ref, key, text, false)
	} else if ref, ok := bytes.CutPrefix(rest, []byte(labelBackR)); ok {
		v.reference(ref, key, text, true)
	} else if string(key) == LabelRoot {
		v.root()
	} else if other != nil {
		other(key, text)
	}
	return nil
}

// reference adds what a label refers to: an edge to it or, for a back reference, from it.
func (v *visit) reference(ref, key, target []byte, back bool) {
	if names, ok := bytes.CutPrefix(ref, []byte("snapshot.")); ok {
		names, _, _ = bytes.Cut(names, []byte("/"))
		// A snapshotter's name may have dots too: each reading is used.
		for end := 0; end <= len(names); end++ {
			if end == len(names) || names[end] == '.' {
				v.refer(KindSnapshot, string(names[:end]), key, target, back)
			}
		}
		return
	}
	for _, k := range [...]struct {
		word string
		kind Kind
	}{{"content", KindContent}, {"image", KindImage}, {"container", KindContainer}} {
		rest, ok := bytes.CutPrefix(ref, []byte(k.word))
		if ok && (len(rest) == 0 || rest[0] == '.' || rest[0] == '/') {
			v.refer(k.kind, "", key, target, back)
		}
	}
}

func (v *visit) refer(kind Kind, set string, key, target []byte, back bool) {
	from, to := v.node, v.g.node(kind, set, target)
	if back {
		from, to = to, from
	}
	v.g.link(from, to, true, func() string { return "label " + string(key) })
}

// expired reports whether a label sets an expiry that has passed. A text that is not a time sets
// none.
func (v *visit) expired(key, text []byte) bool {
	if string(key) != LabelExpire {
		return false
	}
	end, err := time.Parse(time.RFC3339, string(text))
	return err == nil && !end.After(v.now)
}

// Types of a lease's resources, as published; those of snapshots have the snapshotter's
// name after them.
const (
	ResourceContent   = "content"
	ResourceIngests   = "ingests"
	ResourceImages    = "images"
	ResourceSnapshots = "snapshots/"
)

// resourceKind reads the type of a lease's resource; others than these keep nothing.
func resourceKind(typ string) (kind Kind, set string, ok bool) {
	switch typ {
	case ResourceContent:
		return KindContent, "", true
	case ResourceImages:
		return KindImage, "", true
	}
	set, ok = strings.CutPrefix(typ, ResourceSnapshots)
	return KindSnapshot, set, ok
}
