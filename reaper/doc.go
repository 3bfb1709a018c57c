// Package reaper collects the exits of all children of a process: those that it started
// itself and those that the kernel gave it because their parent died (see SetSubreaper).
//
// One Reaper per process listens for SIGCHLD and collects all exits with wait4 each time,
// so that exits whose signals were merged into one are not missed. It is meant for programs that
// need the exits of grandchildren: `runc create` starts a container's init, exits, and the
// init becomes the subreaper's child.
//
// Guarantees:
//
//   - The exit of a child started through Spawn is always delivered, however soon it dies: the
//     lock that registers the pid is held across the fork.
//   - The exit of an adopted child is delivered if a Capture was opened before the process that
//     created it was started, however late it is claimed.
//   - Delivery never blocks the reaper and nothing is dropped: an exit is kept in the Child.
//   - A pid is never mistaken for a later one of the same number. The kernel does not reuse the
//     pid of an uncollected child, and signalling, claiming and collecting exclude each
//     other; an uncollected child identifies a process as well as a pidfd, on every kernel.
//   - Exits of unclaimed children are collected and discarded.
//
// Adopt does the same for a process that is another's child: a container's init whose shim died,
// given to pid 1 by the kernel, is watched by a pidfd, and identified by its pid and start
// time. That needs Linux 6.15. Waiting for such a process holds no thread.
//
// Caveat: with a Reaper running, every child of the process is collected by it. os/exec's Wait
// and os.Process.Wait must not be relied on for a status; start commands through Spawn, or through
// Start and Wait, which are go-runc's ProcessMonitor: package shim runs the OCI runtime by them.
package reaper
