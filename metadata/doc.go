// Package metadata keeps the records of cleatd: namespaces, containers, images, leases,
// snapshots, and which blobs a namespace may see. They live in one bbolt file.
//
// # Transactions
//
// All access is through closures, DB.View and DB.Update, and whoever owns the use case
// owns the transaction: several nouns change together or not at all, with one sync to
// disk. Updates that arrive while another is being written share the next sync, so a
// closure given to Update may be run more than once and must only assign its results.
// Closures must be short: no I/O, no calls to drivers or shims inside.
//
// Guarantees: when Update has returned nil its changes survive power loss; when it has
// returned an error they were not made. A namespace never sees another's records.
// Nothing in this package panics outwards: a damaged file gives errors of the class data
// loss that name the file.
//
// # Buckets
//
//	cleat/
//	  schema                          uint64, big endian: 1
//	  sequence                        uint64: the highest snapshot number ever recorded
//	  namespaces/<namespace>/
//	    info                          Namespace
//	    containers/<id>               Container
//	    images/<name>                 Image
//	    leases/<id>                   Lease
//	    resources/<lease>\0<type>\0<id>    empty
//	    blobs/<digest>                Blob
//	    ingests/<ref>                 Ingest
//	    snapshots/<snapshotter>/<key>          Snapshot
//	    children/<snapshotter>/<parent>\0<key> empty
//
// Records are written in protobuf's wire format; the field numbers stand in codec.go.
// Fields that this version does not know are kept when it changes a record, so that a
// newer version's data survives a downgrade.
//
// # Garbage collection
//
// DB.Collect deletes what nothing keeps, by the rules in gc.go. Calls of several steps hold
// what they work with (DB.Hold), clients use leases; an Update under WithLease puts what it
// makes into one.
//
// # Snapshots and their directories
//
// The records are here, the directories are a snapshot.Driver's. To make a snapshot:
//
//  1. View: Snapshots.ParentIDs(parent) checks the parent and gives the driver's numbers.
//  2. DB.ReserveSnapshotID, and defer its release.
//  3. driver.Prepare with these; push driver.Remove on the undo stack.
//  4. Update: Snapshots.Create, in one transaction with whatever else the call records.
//
// To commit: View for the number, driver.Commit, which puts the data on disk, then Update
// with Snapshots.Commit. To remove: Update with Snapshots.Remove, which returns the
// number, then driver.Remove. A crash between the steps leaves a directory without a
// record; driver.Cleanup with DB.LiveSnapshots removes it at start, or at any time.
package metadata
