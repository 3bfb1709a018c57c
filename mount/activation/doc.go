// Package activation performs the mounts of a list that the final user of the file system cannot
// perform itself: it implements containerd's mounts service.
//
// Concepts. An activation is a named list of mounts of which this package performs the first ones (its
// active mounts, each at a mount point of its own) and returns the rest (its system mounts), with
// the data of the first ones filled in. The types of the mounts determine which ones have to be
// performed:
//
//   - "loop": the source, a file, becomes a block device. A later mount refers to its path by {{ source N }}.
//   - transforms before the type, as in "format/mkdir/overlay", applied from left to right when all
//     mounts before are active: "format" fills in templates, "mkfs" creates a file system in a file, "mkdir"
//     creates directories. See transform.go.
//
// Everything before the last mount of such a kind is mounted, since that may refer to it. If the last
// one is an ordinary mount after its transforms, it is returned. A list without a mount of such a
// kind is refused as not implemented: it can be mounted as it is. A temporary activation is
// mounted completely, each mount on the one before, and a bind mount of the result is returned.
//
// Guarantees. Activate performs all mounts or none. A mount is recorded before it is performed: a Manager
// that is opened after a crash undoes incomplete activations, and keeps the others. Records are stored next to
// the mounts, in a directory that a reboot empties as it ends the mounts. Deactivate can be repeated after any
// error.
//
// Concurrency. All methods may be called concurrently; calls for one name are serialised.
package activation
