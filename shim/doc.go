// Package shim is the program that owns a container: containerd-shim-cleat-v2. It is started for
// a container, makes itself the subreaper of all that the OCI runtime leaves behind, and depends
// on the daemon for nothing: the daemon may crash, restart or be upgraded while the container runs
// on, its output goes on, and its exit is recorded.
//
// # How it is started
//
// By cleatd, with one exec: the published arguments and the verb serve,
//
//	containerd-shim-cleat-v2 -namespace NS -address GRPC-SOCKET -publish-binary DAEMON -id ID [-debug] serve
//
// in a session of its own, with the bundle as working directory and a listening unix socket as
// descriptor 3 (CLEAT_LISTEN_FD=3 says so). There is no handshake: the socket listens already, and
// a connection waits until the shim accepts it. The environment has TTRPC_ADDRESS, where events
// go, and should have GOMAXPROCS=1 (see memory.go). stderr takes log lines.
//
// By any daemon of runtime v2, with the verb start: it makes the socket, leaves a process behind
// that does the same as above, and prints the address; in the form of containerd 2.3
// (BootstrapParams, BootstrapResult) if it was asked in that form, else as a bare address, which
// every version takes. Each container gets a shim of its own, also where a grouping annotation
// would let several share one; a shim that is asked to hold several does.
//
// The verb delete cleans up after a shim that died. -info and -v describe the program.
//
// # What it guarantees
//
//   - Exits: an exit is recorded (internal/exitrecord) before Wait, State or an event tells it.
//     Create is told before start, start before exit, exit before delete; the exits of exec'd
//     processes and an OOM kill before the exit of the init. Events are kept until a daemon has
//     taken them, for as long as the shim lives, and sent anew, in order, from the one on that was
//     not acknowledged.
//   - Failure: a create, run or exec that fails or whose caller goes away leaves nothing behind.
//   - Patience: State, Wait, Connect and Status never wait for the OCI runtime, and no process
//     waits for the runtime's work on another.
//   - Identity: processes are known as uncollected children (package reaper), never by a pid alone.
//   - Stdio: see below. Descriptors: the container gets 0, 1 and 2, nothing else.
//   - End: Shutdown ends a shim without containers, once its events are sent (bounded). One that
//     holds no container and to which nobody is connected leaves by itself after half a minute.
//     SIGTERM, SIGINT and SIGHUP are ignored: stop the container instead.
//
// # Stdio
//
// A FIFO (a path, or fifo://) is opened for the process itself, blocking; the shim keeps a reading
// end of output, so that a client may leave and come back, and a writing end of stdin until
// CloseIO. No byte passes through the shim. A regular file at a bare path is treated as file://.
//
// For file:// the process gets a pipe whose pages the shim moves to the end of the file in the
// kernel; all that was written before the exit is in the file when the exit is told. For
// binary:// a logger process gets the pipes. A terminal's bytes are copied by the shim.
//
// Output that a process left in the background goes on writing after the init's exit neither
// delays the exit nor Delete: Delete waits only for terminal output that is still on the move.
//
// # Reading on
//
// main.go (arguments) -> bootstrap.go (start), serve.go (the process), remove.go (delete).
// register.go (the services) -> create.go, start.go, control.go, delete.go -> oci.go (the runtime's
// command line). exit.go: from the reaper to the record to the event. lifecycle.go: the states.
// publish.go: events on their way. Files in the bundle: handle.go.
//
// # Caveats
//
// Linux, root. Restoring from a checkpoint is not supported. The runtime's root is ROOT/NAMESPACE
// with ROOT from the options, or the directory runc beside the bundles'. The runtime's delete, and
// so the poststop hooks, run as soon as the init has exited, not only in Delete.
package shim
