// Package events is a durable, ordered log of events that any number of readers follow from a
// cursor of their own.
//
// Concepts. An Event is what the containerd API calls an envelope: time, namespace, topic and a
// typed payload. Append gives each a Cursor, a number that only grows (not by one: it skips ahead
// when a log is opened again). A Subscription reads on from a cursor: first what the log holds,
// then what comes.
//
// Guarantees. Events are read in the order they were appended, each exactly once per
// subscription; cursors grow and time stamps do not decrease in that order. An event that Append
// accepted survives the end of the process, in whatever way; it is synced to disk in the background
// within a fraction of a second, and a power loss may take those last events (the containers they
// speak of are gone as well). Events that come with a
// Sequence are kept by their sender until Log.Sequence says that they are on disk, and sent again
// after a power loss. No cursor is given out twice, not even after a power loss.
//
// A disk that takes no writes (full, out of inodes, read-only, I/O errors) stops neither Open nor
// Append: events are held in memory, up to Options.Memory bytes, and written once the disk takes
// them (held.go). Those that are held are lost if the process ends before that, and the oldest are
// lost beyond the limit; a subscription that has not read these gets errdefs.ErrOutOfRange.
// Options.OnHold receives the beginning and the end of such a time.
//
// Readers never slow a writer: a subscription holds a file position, not a queue. One that falls
// behind by more than the log keeps gets an error of class errdefs.ErrOutOfRange.
//
// Caveats. One process may have a log open at a time; the caller sees to that. The log keeps
// Options.Keep bytes and forgets the oldest events beyond: it is not an audit trail. Cursors given
// out while nothing can be written are unique as long as the clock is not set back before the next
// Open: a log continues after the larger of the cursors on disk and the clock in microseconds.
//
// On disk, a directory of segments named by the first cursor that may stand in them, 16 hex
// digits and ".log"; each is a sequence of records (codec.go). The file "reserved" holds, in
// decimal, a cursor that no segment reaches yet; "sequence" the highest Event.Sequence of the
// segments that were forgotten, where no later one tells it.
package events
