// Package events is a durable, ordered log of events that any number of readers follow from a
// cursor of their own.
//
// Concepts. An Event is an envelope of the containerd API: time, namespace, topic and a
// typed payload. Append gives each a Cursor, a number that only grows (not by one: it skips ahead
// when a log is opened again). A Subscription reads from a cursor: first the events in the log,
// then new ones.
//
// Guarantees. Events are read in the order they were appended, each exactly once per
// subscription; cursors grow and time stamps do not decrease in that order. An event that Append
// accepted survives any end of the process; it is synced to disk in the background
// within a fraction of a second, and a power loss may lose those last events (the containers they
// are about are gone as well). Events with a
// Sequence are kept by their sender until Log.Sequence reports them as on disk, and appended again
// after a power loss. No cursor is used twice, not even after a power loss.
//
// A disk that takes no writes (full, out of inodes, read-only, I/O errors) stops neither Open nor
// Append: events are held in memory, up to Options.Memory bytes, and written once the disk takes
// them (held.go). Held events are lost if the process ends before that, and the oldest are
// lost beyond the limit; a subscription that has not read these gets errdefs.ErrOutOfRange.
// Options.OnHold receives the beginning and the end of such a time.
//
// Readers never slow a writer: a subscription holds a file position, not a queue. One that falls
// further behind than the log reaches gets an error of class errdefs.ErrOutOfRange.
//
// Caveats. Only one process may have a log open at a time; the caller ensures that. The log keeps
// Options.Keep bytes and drops older events: it is not an audit trail. Cursors assigned
// while nothing can be written are unique as long as the clock is not set back before the next
// Open: a log continues after the larger of the cursors on disk and the clock in microseconds.
//
// On disk, a directory of segments named by the lowest cursor that they may contain, 16 hex
// digits and ".log"; each is a sequence of records (codec.go). The file "reserved" contains, in
// decimal, a cursor that no segment has reached yet; "sequence" the highest Event.Sequence of the
// dropped segments, if no later one records it.
package events
