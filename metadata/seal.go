package metadata

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/encoding/protowire"
)

// A record ends with a seal: field 100, a fixed32 that is the CRC-32C of the names of the buckets
// it is in (below the top one), its key, each followed by a NUL byte, and the record itself. So a
// record that was altered, or that is stored under another name than it was written to, is
// recognised as damaged; the pages around it are checked by package boltfile.
const (
	sealField = 100
	sealSize  = 6 // two bytes of tag, four of sum
)

// scope is the sum over the names of buckets, from which seals continue.
type scope uint32

func scopeOf(names ...string) scope {
	var sum scope
	for _, n := range names {
		sum = sum.below(n)
	}
	return sum
}

// below returns the scope of a bucket inside this one.
func (s scope) below(name string) scope {
	sum := crc32.Update(uint32(s), castagnoli(), []byte(name))
	return scope(crc32.Update(sum, castagnoli(), []byte{0}))
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// seal appends the seal to a record that is written under key.
func (s scope) seal(key string, record []byte) []byte {
	sum := crc32.Update(uint32(s.below(key)), castagnoli(), record)
	record = protowire.AppendTag(record, sealField, protowire.Fixed32Type)
	return binary.LittleEndian.AppendUint32(record, sum)
}

// open checks the seal of a value under key and returns the record without it. A seal that is
// missing or invalid is ErrDataLoss.
func (s scope) open(key string, raw []byte) ([]byte, error) {
	n := len(raw) - sealSize
	if n < 0 || !hasSealTag(raw[n:]) {
		return nil, fmt.Errorf("record is damaged: seal missing: %w", errdefs.ErrDataLoss)
	}
	if crc32.Update(uint32(s.below(key)), castagnoli(), raw[:n]) != binary.LittleEndian.Uint32(raw[n+2:]) {
		return nil, fmt.Errorf("record is damaged: seal invalid: %w", errdefs.ErrDataLoss)
	}
	return raw[:n:n], nil
}

func hasSealTag(b []byte) bool {
	num, typ, n := protowire.ConsumeTag(b)
	return num == sealField && typ == protowire.Fixed32Type && n == sealSize-4
}
