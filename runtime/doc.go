// Package runtime implements the manager's side of running containers: it creates their bundles,
// launches a shim for each, communicates with it, and finds all of them again after a restart.
//
// Concepts. A Task is one running (or created, or stopped) container with the shim that owns it.
// A bundle is its directory below the state directory and holds the shim's address, so that the
// file system is the only memory this package needs: a Manager that starts after another was killed
// finds every bundle, and dials.
//
// The view. A Manager keeps the known state of each task (status, pid, exit) and serves Info and
// List from it, without calling a shim: one stuck shim slows down no other call. The view is
// updated by the events that shims forward (Observe), by the results of calls, and at adoption by
// the shim's own report. A task whose shim has not answered since the Manager started is unknown,
// not dead: it is dialled again until it answers. A shim is dead when its socket has no listener
// any more; then, and only then, its container is cleaned up and its exit published.
//
// Incomplete bundles. A bundle is created under a name that starts with a dot and renamed to its own
// name. Its state (state.go) is not committed until Task.Commit: a task found in that state at start
// belongs to a request that was never answered, and is removed. Removal renames to a dot name first.
//
// Runtimes. Names map to shim binaries as published for runtime v2. cleat's own shim receives its
// socket, already listening, as descriptor 3, and serves at once (verb "serve"); any other is
// started by the published protocol (verb "start").
//
// Concurrency. All methods may be called concurrently. Every call to a shim has a deadline. No lock
// is held while waiting for a shim, a runtime or a file system.
package runtime
