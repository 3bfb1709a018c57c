// Package events is a durable, ordered log of events that any number of readers follow from a
// cursor of their own.
//
// Concepts. An Event is what the containerd API calls an envelope: time, namespace, topic and a
// typed payload. Append gives each a Cursor, a number that only grows (not by one: it skips ahead
// when a log is opened again). A Subscription reads on from a cursor: first what the log holds,
// then what comes.
//
// Guarantees. Events are read in the order they were appended, each exactly once per
// subscription. An event that Append accepted survives the end of the process, in whatever way;
// it is synced to disk in the background within a fraction of a second, and a power loss may take
// those last events (the containers they speak of are gone as well). Events that come with a
// Sequence are kept by their sender until Log.Sequence says that they are on disk, and sent again
// after a power loss. No cursor is given out twice, not even after a power loss.
//
// Readers never slow a writer: a subscription holds a file position, not a queue. One that falls
// behind by more than the log keeps gets an error of class errdefs.ErrOutOfRange.
//
// Caveats. One process may have a log open at a time; the caller sees to that. The log keeps
// Options.Keep bytes and forgets the oldest events beyond: it is no audit trail.
//
// On disk, a directory of segments named by the first cursor that may stand in them, 16 hex
// digits and ".log"; each is a sequence of records (codec.go). The file "reserved" holds, in
// decimal, a cursor that no segment reaches yet; "sequence" the highest Event.Sequence of the
// segments that were forgotten, where no later one tells it.
package events
