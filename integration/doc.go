// Package integration tests the whole: the real cleatd, shim and CLI, real runc, real namespaces.
//
// Every test starts daemons of its own with directories of its own (Start), and every daemon's end
// is followed by a search for what it may have left: processes, mounts, cgroups, bundles, sockets,
// snapshots, FIFOs (leaks_test.go). Sizes are what two cores carry in a minute; CLEAT_FULL=1 runs those
// that the design names.
package integration
