// Package content is a store of blobs by digest, on a directory.
//
// A blob is written as an ingest, which has a free-text name, its ref, and can be left and
// taken up again at its offset, also after a restart. Committing verifies size and digest
// and makes the blob visible under its digest.
//
// # Guarantees
//
// What is visible has been verified, whole, and is on disk; a commit that returned nil
// survives power loss. Blobs never change. Whoever writes a ref has it for himself: a
// second writer gets unavailable. Memory does not grow with the size of a blob.
//
// # Caveats
//
// One process at a time may use the directory. Nothing is deleted but by Delete, Abort and
// AbortStale. There are no namespaces and no labels here: cleatd keeps those in its
// metadata, and calls its ingests "namespace/ref". A blob is not verified again when it is
// read; Reindex verifies all of them.
//
// # On disk
//
//	blobs/<algorithm>/<hex>         a blob, mode 0444
//	ingest/<sha256 of ref>/meta     JSON: ref, expected digest, total size, start, boot
//	ingest/<sha256 of ref>/data     what was written so far
//	ingest/<sha256 of ref>/state    the running digest at some offset, of this boot
//	ingest/<sha256 of ref>/synced   the running digest at some offset that is on disk
//	damaged/<algorithm>-<hex>[.n]   what Reindex found not to be what its name says
//
// A directory below ingest without data, or whose meta cannot be read, is no ingest: it is
// what a crash left of a creation or a removal, and goes at the next Open.
//
// # Which running digest is believed
//
// A commit trusts the running digest and does not read the data again, so a digest that is
// not of the data that is there would make a wrong blob visible. Hence:
//
//   - While a process lives, the digest is of the bytes that it wrote, in order, each once.
//     A write that fails breaks the writer: it can be truncated or left, not committed.
//   - When a process dies and the machine goes on, the kernel has every byte that was
//     written. The file state, replaced by rename after the bytes it speaks of were
//     written, is believed then, and only what follows its offset is read again. It names
//     the machine's run by the kernel's boot ID, and is never believed in another one.
//   - When the machine stops, bytes that were not synced may be anything, while a younger
//     file beside them is whole. So the next Open takes an ingest of another boot back to
//     the offset of its file synced, which was written after a sync of the data and synced
//     itself; or to 0 where there is none. A client that asks for the offset goes on from
//     there. Data and synced are written at Close, and while writing every 256 MiB.
//   - Both files carry a checksum of themselves and one of the last 4 KiB before their
//     offset, are dropped, durably, before a truncation, and do not count where the data
//     is shorter. A file that does not count costs reading the data again, nothing more.
//   - When a sync fails, memory and disk may differ and no later sync would tell: the
//     ingest goes back to what was synced before, or goes.
//
// What this does not cover is a file system that loses bytes while the machine runs on,
// such as a disk that is pulled out and put in again under the same boot ID.
package content
