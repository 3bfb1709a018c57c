// Package activation mounts lists of mounts on behalf of clients, as far as that cannot be left to whoever
// uses the file system in the end: it is what stands behind containerd's mounts service.
//
// Concepts. An activation is a named list of mounts of which this package performs the first ones (its
// active mounts, each at a mount point of its own) and hands the rest back (its system mounts), with
// whatever the rest needs to know of the first filled in. What has to be performed is found in the
// types of the mounts:
//
//   - "loop": the source, a file, becomes a block device. A later mount has its path by {{ source N }}.
//   - transforms before the type, as in "format/mkdir/overlay", applied from left to right when all
//     mounts before are active: "format" fills templates in, "mkfs" makes a file system in a file, "mkdir"
//     makes directories. See transform.go.
//
// Everything before the last mount of such a kind is mounted, since that may refer to it. Where the last
// one is an ordinary mount after its transforms, it is handed back. A list in which nothing is of such a
// kind is refused as not implemented: it can be mounted as it is. An activation that is temporary is
// mounted whole, one upon the other, and a bind mount of the result handed back.
//
// Guarantees. Activate makes all of it or nothing. What is mounted is on record before it is: a Manager
// that is opened after a crash undoes what was half made, and knows the rest. Records are kept beside the
// mounts, in a directory that a reboot empties as it ends the mounts. Deactivate can be repeated after any
// error.
//
// Concurrency. All methods may be called concurrently; calls for one name follow each other.
package activation
