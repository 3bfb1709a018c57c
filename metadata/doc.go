// Package metadata keeps the records of cleatd: namespaces, containers, sandboxes, images,
// leases, snapshots, and which blobs a namespace may see. They live in one bbolt file.
//
// # Transactions
//
// All access is through closures, DB.View and DB.Update, and the owner of the use case owns the
// transaction: several nouns change together or not at all, with one sync to
// disk. Updates that arrive while another is being written share the next sync, so a
// closure given to Update may be run more than once and must only assign its results.
// Closures must be short: no I/O, no calls to drivers or shims inside.
//
// Guarantees: when Update has returned nil its changes survive power loss; when it has
// returned an error they were not made. A namespace never sees another's records.
// Readers do not wait for writers. Nothing in this package panics outwards.
//
// # Events
//
// Tx.Publish adds an event to a transaction. It goes to the Outlet, the event log, once the
// transaction is committed, before Update returns, and never for one that was rolled back.
// It is written with the transaction, so that a crash before the log has it loses nothing;
// its number, which the log keeps, shows at the next start that the log has it already. The
// order is that of the commits. What the log has on disk leaves the outbox with a later
// update.
//
// # Damage
//
// Open reads the whole file and refuses it, with an error of the class data loss that names
// the file and the way out, if a byte that matters is not what was written: bbolt's pages
// are checked by package boltfile, records by their seals (seal.go). A commit that power
// loss cuts off is not damage: the state before it is whole. Inspect reports all findings, Salvage
// copies what is intact into a new file, and Unavailable replaces a database that a daemon has to
// run without.
//
// # Versions
//
// A file of an earlier version is migrated to this one's at Open, in one transaction (migrate.go);
// one of a later version is refused and left unchanged. testdata holds a file of each version,
// fixture_test.go and fixture_v2_test.go write them.
//
// # Buckets
//
//	cleat/
//	  schema                          uint64, big endian: 2
//	  sequence                        uint64 and seal: the highest snapshot number ever recorded
//	  outbox/<uint64>                 Event: published, perhaps not in the event log
//	  namespaces/<namespace>/
//	    info                          Namespace
//	    containers/<id>               Container
//	    sandboxes/<id>                Sandbox
//	    images/<name>                 Image
//	    leases/<id>                   Lease
//	    resources/<lease>\0<type>\0<id>    only the seal
//	    blobs/<digest>                Blob
//	    ingests/<ref>                 of earlier versions; ignored
//	    snapshots/<snapshotter>/<key>          Snapshot
//	    children/<snapshotter>/<parent>\0<key> only the seal
//
// Version 1 had neither seals nor the outbox.
//
// Records are protobuf messages: internal/records/records.proto describes them, codec.go
// converts them. Every record but schema ends with its seal: code that writes to a bucket uses a
// table, or seals what it writes.
// Unknown fields are kept when a record is changed, so that a
// newer version's data survives a downgrade.
//
// # Garbage collection
//
// DB.Collect deletes what nothing keeps, by the rules in gc.go. Calls of several steps hold the
// objects they work with (DB.Hold), clients use leases; an Update under WithLease adds what it
// creates to the lease.
//
// # Snapshots and their directories
//
// This package holds the records, a snapshot.Driver the directories. To create a snapshot:
//
//  1. View: Snapshots.ParentIDs(parent) checks the parent and gives the driver's numbers.
//  2. DB.ReserveSnapshotID, and defer its release.
//  3. driver.Prepare with these; push driver.Remove on the undo stack.
//  4. Update: Snapshots.Create, in one transaction with the call's other records.
//
// To commit: View for the number, driver.Commit, which puts the data on disk, then Update
// with Snapshots.Commit. To remove: Update with Snapshots.Remove, which returns the
// number, then driver.Remove. A crash between the steps leaves a directory without a
// record; driver.Cleanup with DB.LiveSnapshots removes it at start, or at any time.
package metadata
