package boltfile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// maxDepth bounds the pages above a leaf; bbolt's trees have a handful.
const maxDepth = 64

// Visitor receives what a file holds, in the order of the keys.
type Visitor struct {
	// Bucket receives a bucket before its records; path are the names from the top.
	Bucket func(path []string)
	// Record receives a record: the path of its bucket, its key and its value. They are
	// valid until it returns.
	Record func(path []string, key, value []byte)
	// Problem receives a page or entry that cannot be read. What depends on it is left
	// out and the walk continues.
	Problem func(path []string, err error)
}

// Walk visits everything in a file of size bytes that can be reached. An error says that
// the file has no place to begin.
func Walk(r io.ReaderAt, size int64, v Visitor) error {
	f, err := openFile(r, size)
	if err != nil {
		return err
	}
	w := walker{file: f, visit: v, seen: make(map[uint64]bool)}
	if f.metas < 2 {
		// It may have been the later one, which a torn write does not explain: it is far
		// smaller than what a disk writes at once.
		w.problem(nil, "one of its two meta pages is not valid; the last change may be lost")
	}
	w.tree(nil, f.root, bounds{}, 0)
	w.freeList()
	return nil
}

// Check returns the first thing that is wrong with the structure of a file, or nil: then
// bbolt can read all of it. visit receives buckets and records on the way; its Problem
// is not called.
func Check(r io.ReaderAt, size int64, visit Visitor) error {
	var first error
	visit.Problem = func(_ []string, err error) {
		if first == nil {
			first = err
		}
	}
	if err := Walk(r, size, visit); err != nil {
		return err
	}
	return first
}

// bounds are those that the branch above sets to the keys of a page: from low on, and
// below high where there is one.
type bounds struct{ low, high []byte }

// walker is one walk.
type walker struct {
	*file
	visit Visitor
	seen  map[uint64]bool
}

func (w *walker) problem(path []string, format string, args ...any) {
	if w.visit.Problem != nil {
		w.visit.Problem(path, fmt.Errorf(format, args...))
	}
}

// tree visits the page id and all below it. Each page is visited once, so that the walk
// ends whatever the pages say.
func (w *walker) tree(path []string, id uint64, in bounds, depth int) {
	p, err := w.read(id)
	if err != nil {
		w.problem(path, "%w", err)
		return
	}
	for i := range p.pages {
		if w.seen[id+i] {
			w.problem(path, "page %d has two places", id+i)
			return
		}
		w.seen[id+i] = true
	}
	switch {
	case depth > maxDepth:
		w.problem(path, "page %d lies more than %d deep", id, maxDepth)
	case p.flags == flagBranch && p.count > 0:
		w.branch(path, &p, in, depth)
	case p.flags == flagLeaf:
		w.leaf(path, &p, in, depth)
	default:
		w.problem(path, "page %d is of kind %#x with %d entries, in place of a branch or leaf", id, p.flags, p.count)
	}
}

func (w *walker) branch(path []string, p *page, in bounds, depth int) {
	if headerSize+p.count*elementSize > len(p.b) {
		w.problem(path, "page %d has room for less than its %d entries", p.id, p.count)
		return
	}
	low, end := in.low, headerSize+p.count*elementSize
	for i := range p.count {
		e, err := p.element(i)
		if err != nil {
			w.problem(path, "%w", err)
			continue
		}
		w.adjoins(path, p, i, e, &end)
		if !in.admit(e.key) || bytes.Compare(e.key, low) < 0 || i > 0 && bytes.Equal(e.key, low) {
			w.problem(path, "page %d: entry %d is out of order", p.id, i)
		}
		low = e.key
		high := in.high
		if i+1 < p.count {
			if after, err := p.element(i + 1); err == nil {
				high = after.key
			}
		}
		w.tree(path, e.child, bounds{e.key, high}, depth+1)
	}
}

// admit reports whether a key is within the bounds.
func (in bounds) admit(key []byte) bool {
	return bytes.Compare(key, in.low) >= 0 && (in.high == nil || bytes.Compare(key, in.high) < 0)
}

// adjoins checks that an entry begins where the one before ends, as bbolt writes them: so a
// number of entries that is too small is known from the gap that it leaves.
func (w *walker) adjoins(path []string, p *page, i int, e element, end *int) {
	if e.start != *end {
		w.problem(path, "page %d: entry %d does not follow the one before it", p.id, i)
	}
	*end = e.end
}

func (w *walker) leaf(path []string, p *page, in bounds, depth int) {
	if headerSize+p.count*elementSize > len(p.b) {
		w.problem(path, "page %d has room for less than its %d entries", p.id, p.count)
		return
	}
	var last []byte
	end := headerSize + p.count*elementSize
	for i := range p.count {
		e, err := p.element(i)
		if err != nil {
			w.problem(path, "%w", err)
			continue
		}
		w.adjoins(path, p, i, e, &end)
		if !in.admit(e.key) || i > 0 && bytes.Compare(e.key, last) <= 0 {
			w.problem(path, "page %d: entry %d is out of order", p.id, i)
		}
		last = e.key
		if !e.bucket {
			if w.visit.Record != nil {
				w.visit.Record(path, e.key, e.value)
			}
			continue
		}
		w.bucket(append(path[:len(path):len(path)], string(e.key)), p.id, e.value, depth)
	}
}

// bucket visits the bucket that a leaf's value describes.
func (w *walker) bucket(path []string, id uint64, value []byte, depth int) {
	if len(value) < bucketSize {
		w.problem(path, "page %d: a bucket of %d bytes", id, len(value))
		return
	}
	if w.visit.Bucket != nil {
		w.visit.Bucket(path)
	}
	if root := binary.LittleEndian.Uint64(value); root != 0 {
		w.tree(path, root, bounds{}, depth+1)
		return
	}
	inline := value[bucketSize:]
	if len(inline) < headerSize {
		w.problem(path, "page %d: a bucket within of %d bytes", id, len(inline))
		return
	}
	p := page{id: id, flags: binary.LittleEndian.Uint16(inline[8:]), count: int(binary.LittleEndian.Uint16(inline[10:])), b: inline}
	if p.flags != flagLeaf {
		w.problem(path, "page %d: a bucket within of kind %#x", id, p.flags)
		return
	}
	w.leaf(path, &p, bounds{}, depth+1)
}

// freeList checks that no page is both free and in use: bbolt would write over it.
func (w *walker) freeList() {
	if w.freelist == noList {
		return
	}
	p, err := w.read(w.freelist)
	if err != nil {
		w.problem(nil, "free list: %w", err)
		return
	}
	if p.flags != flagFreelist {
		w.problem(nil, "free list: page %d is of kind %#x", p.id, p.flags)
		return
	}
	for i := range p.pages {
		if w.seen[p.id+i] {
			w.problem(nil, "free list: page %d has two places", p.id+i)
			return
		}
		w.seen[p.id+i] = true
	}
	ids := p.b[headerSize:]
	count := uint64(p.count)
	if p.count == 0xffff && len(ids) >= 8 {
		count, ids = binary.LittleEndian.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids)/8) {
		w.problem(nil, "free list: it has room for less than its %d entries", count)
		return
	}
	last := uint64(1)
	for i := range count {
		id := binary.LittleEndian.Uint64(ids[8*i:])
		if id <= last || id >= w.pages || w.seen[id] {
			w.problem(nil, "free list: page %d is free and is not", id)
			return
		}
		last = id
	}
}
