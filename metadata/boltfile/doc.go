// Package boltfile reads the pages of a bbolt file without trusting them. bbolt itself
// trusts its pages: one that points to itself ends in an exhausted stack, one that names
// a size too large in an exhausted memory, and neither can be recovered from. So Check
// is run on a file before bbolt opens it, and Walk takes out of a damaged one what can
// still be reached.
//
// The layout, all integers in the machine's order, which here is little-endian:
//
//	page      id u64, flags u16, count u16, overflow u32, then its content; overflow is
//	          the number of pages that follow and belong to it
//	meta      flag 0x04, pages 0 and 1: magic u32, version u32, page size u32, flags u32,
//	          root page u64, sequence u64, page of the free list u64, number of pages u64,
//	          transaction u64, FNV-1a of all before it u64. The valid one with the higher
//	          transaction counts.
//	branch    flag 0x01, elements: position u32, key size u32, page u64
//	leaf      flag 0x02, elements: flags u32, position u32, key size u32, value size u32
//	free list flag 0x10: page numbers u64; with a count of 0xffff the first is the count
//
// Positions count from the start of their element. The value of a leaf element with flag
// 1 is a bucket: root page u64, sequence u64, and where the root page is 0, a page of the
// leaf kind, without an id.
package boltfile
