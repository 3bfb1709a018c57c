// Package archive applies layers, which are untrusted tar archives, to directories.
//
// Guarantees: whatever the archive contains, nothing outside the root is written, linked to
// or removed. Every path is resolved below the root's descriptor, links included (openat2
// with RESOLVE_IN_ROOT, or a walk by descriptors if that is missing, see internal/inroot),
// so there is no moment between a check and its use. Memory is bounded: it grows with the
// paths of an archive up to a limit, and not with the sizes it states. An archive that is
// truncated, hostile or over its limits is an invalid argument.
//
// Preserved are contents, modes with set-user-ID and the like, owners, times to the
// nanosecond, hard links, symbolic links, devices, FIFOs, extended attributes. Attributes
// of the overlay file system itself are dropped: in an untrusted archive they could show
// other directories' files.
//
// Whiteouts, the entries by which a layer deletes files of lower ones, are carried out
// (WhiteoutRemove), or converted to the overlay file system's marks (WhiteoutOverlay), with
// which a layer can be applied without mounting the lower ones.
//
// Caveats: no other user may have access to the root during the call. An
// error leaves the files applied so far: the caller discards the directory. Nothing is
// synced; the caller syncs once for the whole layer.
package archive
