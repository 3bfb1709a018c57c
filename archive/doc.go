// Package archive applies layers, which are tar archives from strangers, to directories.
//
// Guarantees: whatever the archive holds, nothing outside the root is written, linked to
// or removed. Every path is resolved below the root's descriptor, links included (openat2
// with RESOLVE_IN_ROOT, or a walk by descriptors where that is missing, see internal/inroot),
// so there is no moment between a check and its use. Memory is bounded: it grows with the
// paths of an archive up to a limit, and not with the sizes it claims. An archive that is cut
// short, hostile or over its limits is an invalid argument.
//
// What is kept: contents, modes with set-user-ID and the like, owners, times to the
// nanosecond, hard links, symbolic links, devices, FIFOs, extended attributes. Attributes
// of the overlay file system itself are dropped: in a stranger's hands they could show
// other directories' files.
//
// Whiteouts, the entries by which a layer deletes what is below it, are carried out
// (WhiteoutRemove), or turned into the overlay file system's marks (WhiteoutOverlay), with
// which a layer can be applied without mounting what is below it.
//
// Caveats: the root must not be in anybody else's reach meanwhile. An
// error leaves what was applied so far: the caller throws the directory away. Nothing is
// synced; syncing once for the whole layer is the caller's.
package archive
