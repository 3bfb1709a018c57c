// Package harness starts what the integration tests use: a cleatd with its own directories (Start), registries,
// peers, and test images. It checks after each test that the daemon has left nothing: processes, mounts, cgroups,
// bundles, sockets, snapshots, FIFOs (leaks.go).
//
// Everything that it starts ends with the test that started it. Tests that start their own daemon can run in parallel.
//
// It is a module with few requirements, because the tests of integration/goclient, which use it too, pin the versions
// that a peer's client needs. Helpers that need packages of the product or its API are in integration/fixture.
package harness
