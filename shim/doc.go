// Package shim implements the program that owns a container: containerd-shim-cleat-v2. It is
// started for a container, makes itself the subreaper of all that the OCI runtime leaves behind,
// and does not depend on the daemon: the daemon may crash, restart or be upgraded while the
// container keeps running, its output is kept, and its exit is recorded.
//
// # How it is started
//
// By cleatd, with one exec: the published arguments and the verb serve,
//
//	containerd-shim-cleat-v2 -namespace NS -address GRPC-SOCKET -publish-binary DAEMON -id ID [-debug] serve
//
// in a session of its own, with the bundle as working directory and a listening unix socket as
// descriptor 3 (announced by CLEAT_LISTEN_FD=3). There is no handshake: the socket listens already, and
// a connection waits until the shim accepts it. The environment has TTRPC_ADDRESS, where events
// go, and should have GOMAXPROCS=1 (see memory.go). stderr takes log lines.
//
// By any daemon of runtime v2, with the verb start: it creates the socket, starts a background
// process that does the same as above, and prints the address; in the form of containerd 2.3
// (BootstrapParams, BootstrapResult) if the request has that form, else as a bare address, which
// every version accepts. Each container gets its own shim, even if a grouping annotation would let
// several share one; a shim that is asked to hold several does.
//
// The verb delete cleans up after a shim that died. -info and -v describe the program.
//
// By cleatd after the shim of a container died: as in the first way, in the same bundle, with
// CLEAT_ADOPT=1. See below.
//
// # What it guarantees
//
//   - Exits: an exit is recorded (internal/exitrecord) before Wait, State or an event reports it.
//     Create is published before start, start before exit, exit before delete; the exits of exec'd
//     processes and an OOM kill before the exit of the init. Events are kept until a daemon has
//     taken them, for as long as the shim lives, and sent again, in order, from the one on that was
//     not acknowledged.
//   - Failure: a create, run or exec that fails or whose caller disconnects leaves nothing behind.
//   - Patience: State, Wait, Connect and Status never wait for the OCI runtime, and no process
//     waits for the runtime's work on another.
//   - Identity: processes are known as uncollected children, or by a pidfd (package reaper), never by
//     a pid alone.
//   - Stdio: see below. Descriptors: the container gets 0, 1 and 2, nothing else.
//   - End: Shutdown ends a shim without containers, once its events are sent (bounded). One that
//     holds no container and has no client exits by itself after half a minute.
//     SIGTERM, SIGINT and SIGHUP are ignored: stop the container instead.
//
// # Stdio
//
// A FIFO (a path, or fifo://) is opened for the process itself, blocking; the shim keeps a reading
// end of output, so that a client may disconnect and reconnect, and a writing end of stdin until
// CloseIO. No byte passes through the shim. A regular file at a bare path is treated as file://.
//
// For file:// the process gets a pipe whose pages the shim moves to the end of the file in the kernel;
// all that was written before the exit is in the file when the exit is published. An init sees that
// pipe by its name in the bundle. For binary:// a logger process gets the pipes. A terminal's bytes
// are copied by the shim.
//
// Output that a process left in the background writes after the init's exit delays neither the exit
// nor Delete: Delete waits only for terminal output that is still in transit.
//
// # Sandboxes
//
// A shim may be started for a sandbox, by the published API: it then represents a group of containers,
// holds those that are created in it, and stays until ShutdownSandbox. See sandbox.go.
//
// # A shim's death
//
// A container does not depend on its shim (on kernels 6.15 and later). When the shim dies, the init
// becomes pid 1's child and runs on; a shim started with CLEAT_ADOPT=1 takes it over before it
// serves: by what the dead one recorded in shim.json, after it has locked shim.pid, which
// the dead one held as long as it lived. The init is identified by its pid and start time, followed
// by its pidfd, and reported in its state: created, running or paused. Create and start are not
// published again, unless the dead shim did not have time to publish the start. The exit is
// recorded and published as usual.
//
//   - The pipe between the init and a file:// log is a FIFO in the bundle (log.out, log.err), which
//     the init holds open by itself: without a shim it waits when the pipe is full, and nothing is
//     lost. Other FIFOs are held again, and loggers have never needed the shim. Until then a write
//     to a FIFO that no client reads fails with EPIPE, and a stdin that no client holds is at its end.
//   - A terminal is hung up by the kernel. An init that survives this continues without it.
//   - Exec'd processes keep running, but their ids are lost; the pipes to their logs end.
//   - Events that no daemon had taken die with the shim. OOM kills are published again.
//   - An init that ended while there was no shim is reported with its true exit as long as pid 1 has not
//     collected it. Otherwise, and on older kernels, the new shim holds no container, and it is left
//     to its daemon to clean up with the verb delete. What such an init had written to the
//     pipe of its log since the shim died is lost.
//
// Daemons other than cleatd do not use this: they call delete, which kills the container.
//
// # Reading on
//
// main.go (arguments) -> bootstrap.go (start), serve.go (the process), remove.go (delete). register.go (the services)
// -> create.go, start.go, control.go, delete.go -> oci.go (the OCI runtime, by go-runc), monitor.go (its process
// monitor). Packages stdio (the streams of processes) and cgroup have no part in the life cycle. exit.go: from the
// reaper to the record to the event. lifecycle.go: the states. publish.go: delivery of events. adopt.go: after another
// shim's death. Files in the bundle: handle.go.
//
// # Caveats
//
// Linux, root. A container that is restored from a checkpoint has no process before Start. The runtime's root is
// ROOT/NAMESPACE with ROOT from the options, or the directory runc next to the bundles'. The runtime's delete, and so
// the poststop hooks, run as soon as the init has exited, not only in Delete.
package shim
