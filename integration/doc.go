// Package integration tests the complete product: the real cleatd, shim and CLI, real runc, real namespaces. Every
// test starts its own daemons with their own directories (Start). After the end of every daemon the test searches for
// leaks: processes, mounts, cgroups, bundles, sockets, snapshots, FIFOs (leaks_test.go). Sizes suit two cores and a
// minute; CLEAT_FULL=1 selects the full sizes of the design.
package integration
