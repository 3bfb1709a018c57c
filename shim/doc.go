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
// By cleatd after the shim of a container died: as in the first way, in the same bundle, with
// CLEAT_ADOPT=1. See below.
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
//   - Identity: processes are known as uncollected children, or by a pidfd (package reaper), never by
//     a pid alone.
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
// kernel; all that was written before the exit is in the file when the exit is told. An init sees
// that pipe by its name in the bundle. For
// binary:// a logger process gets the pipes. A terminal's bytes are copied by the shim.
//
// Output that a process left in the background goes on writing after the init's exit neither
// delays the exit nor Delete: Delete waits only for terminal output that is still on the move.
//
// # Sandboxes
//
// A shim may be started for a sandbox, by the published API: it then stands for a group of containers,
// holds those that are made in it, and stays until ShutdownSandbox. See sandbox.go.
//
// # A shim's death
//
// A container does not depend on its shim (on kernels 6.15 and later). When the shim dies, the init
// becomes pid 1's child and runs on; a shim started with CLEAT_ADOPT=1 takes it over, before it
// serves: by what the dead one noted in shim.json, after it has got the lock on shim.pid, which the
// dead one held as long as it lived. The init is known by its pid and start time, followed by its
// pidfd, and told as what it is: created, running or paused. Create and start are not told again,
// unless the dead shim had no time to tell the start. The exit is recorded and told as ever.
//
//   - The pipe between the init and a file:// log is a FIFO in the bundle (log.out, log.err), which
//     the init holds open by itself: without a shim it waits when the pipe is full, and nothing is
//     lost. Other FIFOs are held again, and loggers have never needed the shim. Until then a write
//     to a FIFO that no client reads fails with EPIPE, and a stdin that no client holds is at its end.
//   - A terminal is hung up by the kernel. An init that survives this goes on without it.
//   - Exec'd processes go on, but are not known by their ids any more; the pipes to their logs end.
//   - Events that no daemon had taken die with the shim. Kills for want of memory are told again.
//   - An init that ended while there was no shim is told with its true exit as long as pid 1 has not
//     collected it. Otherwise, and on older kernels, the new shim holds no container, and it is left
//     to whoever started it to clean up with the verb delete. What such an init had written to the
//     pipe of its log since the shim died is lost.
//
// Daemons other than cleatd know nothing of this: they call delete, which kills the container.
//
// # Reading on
//
// main.go (arguments) -> bootstrap.go (start), serve.go (the process), remove.go (delete).
// register.go (the services) -> create.go, start.go, control.go, delete.go -> oci.go (the OCI
// runtime, by go-runc), monitor.go (its process monitor). exit.go: from the reaper to the record to the event. lifecycle.go: the states.
// publish.go: events on their way. adopt.go: after another shim's death. Files in the bundle:
// handle.go.
//
// # Caveats
//
// Linux, root. A container that is restored from a checkpoint runs only from Start on. The runtime's root is ROOT/NAMESPACE
// with ROOT from the options, or the directory runc beside the bundles'. The runtime's delete, and
// so the poststop hooks, run as soon as the init has exited, not only in Delete.
package shim
