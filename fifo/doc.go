// Package fifo opens, creates and removes the named pipes that carry a container's stdio.
//
// A FIFO connects the processes that have it open at the moment; a reader sees the end of file when
// the last writer closes it, a writer is killed by SIGPIPE when the last reader has closed it, and
// both may block in open(2) until the other side opens it. This package avoids these problems:
//
//   - Nothing here blocks a thread. Reads and writes wait in the runtime's poller; a wait for the peer ends
//     with its context and leaves no goroutine, descriptor or thread behind.
//   - Sink and Source give a child process a FIFO as its stdout or stdin: the child's end has an
//     open description of its own, blocking as programs expect; the holder's end keeps the child
//     from SIGPIPE or from an early end of file while clients connect and disconnect.
//   - Outlet gives a process an output that survives its reader: the reader may die, and another
//     continue where it stopped.
//   - A Reader may be opened before there is a writer, and again after the writer left: data
//     written in between, up to the pipe's capacity, is kept.
//
// Ends are opened by github.com/containerd/fifo. This package adds what it lacks: descriptors that a process can
// inherit, pairs of ends that have no gap between them, a check that a path is a FIFO before it is opened, a
// reading end that exists before its first writer, and a wait for a reader that holds no thread.
//
// Caveats: Linux only. Bytes in a FIFO live as long as a process has it open. Two readers of one
// FIFO share its bytes between them.
package fifo
