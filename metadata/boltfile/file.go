package boltfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

const (
	headerSize  = 16
	elementSize = 16
	bucketSize  = 16
	metaSize    = 64

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10
	flagBucket   = 0x01

	magic   = 0xED0CDAED
	version = 2
	noList  = ^uint64(0)
)

// file is a database file with its valid meta page.
type file struct {
	r        io.ReaderAt
	pageSize int64
	root     uint64
	freelist uint64
	pages    uint64 // the number of pages
	txid     uint64
	metas    int // valid meta pages, of two
}

// openFile finds the meta page that counts.
func openFile(r io.ReaderAt, size int64) (*file, error) {
	var found *file
	metas := 0
	for _, at := range metaPlaces() {
		f, err := readMeta(r, at)
		if err != nil || at != 0 && at != f.pageSize {
			continue
		}
		metas++
		if found == nil || f.txid > found.txid {
			found = f
		}
	}
	if found == nil {
		return nil, errors.New("neither of its two meta pages is valid")
	}
	found.metas = metas
	if have := uint64(size / found.pageSize); found.pages > have {
		return nil, fmt.Errorf("it is cut off: %d pages of %d bytes belong to it and %d are there", found.pages, found.pageSize, have)
	}
	return found, nil
}

// metaPlaces are the offsets of meta pages: 0, and one page on, for every size a page has.
func metaPlaces() []int64 {
	places := []int64{0}
	for size := int64(1 << 10); size <= 1<<16; size *= 2 {
		places = append(places, size)
	}
	return places
}

func readMeta(r io.ReaderAt, at int64) (*file, error) {
	var b [headerSize + metaSize]byte
	if _, err := r.ReadAt(b[:], at); err != nil {
		return nil, err
	}
	m := b[headerSize:]
	sum := fnv.New64a()
	_, _ = sum.Write(m[:56]) // a hash takes everything
	if binary.LittleEndian.Uint16(b[8:]) != flagMeta || binary.LittleEndian.Uint32(m) != magic || binary.LittleEndian.Uint32(m[4:]) != version || binary.LittleEndian.Uint64(m[56:]) != sum.Sum64() {
		return nil, errors.New("not a valid meta page")
	}
	f := &file{
		r: r, pageSize: int64(binary.LittleEndian.Uint32(m[8:])), root: binary.LittleEndian.Uint64(m[16:]),
		freelist: binary.LittleEndian.Uint64(m[32:]), pages: binary.LittleEndian.Uint64(m[40:]), txid: binary.LittleEndian.Uint64(m[48:]),
	}
	if f.pageSize < 1<<10 || f.pageSize > 1<<16 {
		return nil, fmt.Errorf("page size %d", f.pageSize)
	}
	return f, nil
}

// page is one page with those that belong to it.
type page struct {
	id    uint64
	flags uint16
	count int
	pages uint64
	b     []byte // all of it, header included
}

// read reads the page id and checks its header.
func (f *file) read(id uint64) (page, error) {
	if id < 2 || id >= f.pages {
		return page{}, fmt.Errorf("page %d is not one of the file's %d", id, f.pages)
	}
	var h [headerSize]byte
	if _, err := f.r.ReadAt(h[:], int64(id)*f.pageSize); err != nil {
		return page{}, fmt.Errorf("page %d: %w", id, err)
	}
	p := page{id: id, flags: binary.LittleEndian.Uint16(h[8:]), count: int(binary.LittleEndian.Uint16(h[10:])), pages: 1 + uint64(binary.LittleEndian.Uint32(h[12:]))}
	if got := binary.LittleEndian.Uint64(h[:]); got != id {
		return page{}, fmt.Errorf("page %d calls itself %d", id, got)
	}
	if p.pages > f.pages-id {
		return page{}, fmt.Errorf("page %d has %d pages more than the file", id, p.pages)
	}
	p.b = make([]byte, int64(p.pages)*f.pageSize)
	if _, err := f.r.ReadAt(p.b, int64(id)*f.pageSize); err != nil {
		return page{}, fmt.Errorf("page %d: %w", id, err)
	}
	return p, nil
}

// element is one entry of a branch or a leaf.
type element struct {
	start, end int // of its key and value in the page
	key, value []byte
	bucket     bool
	child      uint64 // of a branch
}

// element returns entry i; every offset is checked.
func (p *page) element(i int) (element, error) {
	at := headerSize + i*elementSize
	if at+elementSize > len(p.b) {
		return element{}, fmt.Errorf("page %d: entry %d lies outside", p.id, i)
	}
	e := p.b[at:]
	if p.flags == flagBranch {
		key, start, err := p.slice(i, at, binary.LittleEndian.Uint32(e), binary.LittleEndian.Uint32(e[4:]))
		return element{start: start, end: start + len(key), key: key, child: binary.LittleEndian.Uint64(e[8:])}, err
	}
	flags, pos, ksize, vsize := binary.LittleEndian.Uint32(e), binary.LittleEndian.Uint32(e[4:]), binary.LittleEndian.Uint32(e[8:]), binary.LittleEndian.Uint32(e[12:])
	if flags > flagBucket {
		return element{}, fmt.Errorf("page %d: entry %d has the flags %#x", p.id, i, flags)
	}
	both, start, err := p.slice(i, at, pos, ksize+vsize)
	if err == nil && uint64(ksize)+uint64(vsize) != uint64(len(both)) {
		err = fmt.Errorf("page %d: entry %d has impossible sizes", p.id, i)
	}
	if err != nil {
		return element{}, err
	}
	return element{start: start, end: start + len(both), key: both[:ksize:ksize], value: both[ksize:], bucket: flags == flagBucket}, nil
}

// slice returns size bytes at pos of the entry that starts at at. Entries may not reach
// into the table of entries.
func (p *page) slice(i, at int, pos, size uint32) (_ []byte, begin int, _ error) {
	start := uint64(at) + uint64(pos)
	end := start + uint64(size)
	if start < uint64(headerSize+p.count*elementSize) || end > uint64(len(p.b)) {
		return nil, 0, fmt.Errorf("page %d: entry %d lies outside", p.id, i)
	}
	return p.b[start:end:end], int(start), nil
}
