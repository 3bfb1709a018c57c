// Package content is a store of blobs by digest, in a directory.
//
// A blob is written as an ingest, which has a free-text name, its ref, and can be closed and
// resumed at its offset, also after a restart. Committing verifies size and digest
// and makes the blob visible under its digest.
//
// # Guarantees
//
// A visible blob has been verified, is complete, and is on disk; a commit that returned nil
// survives power loss. Blobs never change. A writer has exclusive use of its ref: a
// second writer gets unavailable. Memory does not grow with the size of a blob.
//
// # Caveats
//
// One process at a time may use the directory. Only Delete, Abort and
// AbortStale delete anything. This package has no namespaces and no labels: cleatd keeps those in its
// metadata, and calls its ingests "namespace/ref". A blob is not verified again when it is
// read; Reindex verifies all of them.
//
// # On disk
//
//	blobs/<algorithm>/<hex>         a blob, mode 0444
//	ingest/<sha256 of ref>/meta     JSON: ref, expected digest, total size, start, boot
//	ingest/<sha256 of ref>/data     the data written so far
//	ingest/<sha256 of ref>/state    the running digest at some offset, of this boot
//	ingest/<sha256 of ref>/synced   the running digest at some offset that is on disk
//	damaged/<algorithm>-<hex>[.n]   files that did not match their name in a Reindex
//
// A directory below ingest without data, or whose meta cannot be read, is not an ingest: it is
// the rest of an interrupted creation or removal, and is removed at the next Open.
//
// # Which running digest is trusted
//
// A commit trusts the running digest and does not read the data again, so a digest of other
// data would make a wrong blob visible. Hence:
//
//   - While a process lives, the digest is of the bytes that it wrote, in order, each once.
//     A write that fails breaks the writer: it can be truncated or closed, not committed.
//   - If a process dies and the machine keeps running, the kernel has every byte that was
//     written. The file state, replaced by rename after the bytes it covers were
//     written, is trusted then, and only the bytes after its offset are read again. It names
//     the boot by the kernel's boot ID, and is never trusted in another one.
//   - If the machine stops, bytes that were not synced may be anything, while a younger
//     file next to them is intact. So the next Open truncates an ingest of another boot to
//     the offset of its file synced, which was written after a sync of the data and synced
//     itself; or to 0 if there is none. A client that asks for the offset continues from
//     there. Data and synced are written at Close, and while writing every 256 MiB.
//   - Both files have a checksum of themselves and one of the last 4 KiB before their
//     offset, are removed, durably, before a truncation, and are ignored if the data
//     is shorter. An ignored file only costs reading the data again.
//   - If a sync fails, memory and disk may differ and no later sync would report it: the
//     ingest is rolled back to its last synced state, or removed.
//
// This does not cover a file system that loses bytes while the machine keeps running,
// such as a disk that is unplugged and plugged in again under the same boot ID.
package content
