// Package runtime is the manager's side of running containers: it makes their bundles, launches
// a shim for each, talks to it, and finds all of them again after a restart.
//
// Concepts. A Task is one running (or created, or stopped) container with the shim that owns it.
// A bundle is its directory below the state directory; the shim's address stands in it, so that
// the file system is the only memory this package needs: a Manager that starts where another was
// killed finds every bundle, and dials.
//
// The view. A Manager keeps what it knows of each task (status, pid, exit) and answers Info and
// List from it, without asking a shim: one stuck shim slows nobody. The view is fed by the events
// that shims forward (Observe), by the answers of calls, and at adoption by the shim's own
// account. A task whose shim has not answered since the Manager started is unknown, not dead: it
// is dialled again for as long as it takes. A shim is dead when nobody listens on its socket any
// more; then, and only then, its container is cleaned up and its exit made known.
//
// Half-made bundles. A bundle is created under a name that starts with a dot and gets its own name
// by a rename. Its state (state.go) is not committed until Task.Commit: a task found like that at start
// belongs to a request that was never answered, and is removed. Removal renames to a dot name first.
//
// Runtimes. Names map to shim binaries as published for runtime v2. cleat's own shim is handed its
// socket, already listening, as descriptor 3, and serves at once (verb "serve"); any other is
// started by the published protocol (verb "start").
//
// Concurrency. All methods may be called concurrently. Every call to a shim has a deadline. No
// lock is held while a shim, a runtime or a file system is waited for.
package runtime
