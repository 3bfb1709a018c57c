// Package fifo opens, makes and removes the named pipes that carry a container's stdio.
//
// A FIFO joins whoever has it open at the moment; a reader sees the end of file when the last
// writer leaves, a writer is killed by SIGPIPE when the last reader has left, and both may block
// in open(2) until the other side comes. This package takes the sting out of that:
//
//   - Nothing here blocks a thread. Reads and writes wait in the runtime's poller; a wait for the peer ends
//     with its context and leaves no goroutine, descriptor or thread behind.
//   - Sink and Source give a child process a FIFO as its stdout or stdin: the child's end has an
//     open description of its own, blocking as programs expect; the holder's end keeps the child
//     from SIGPIPE or from an early end of file while clients come and go.
//   - Outlet gives a process an output that survives its reader: who reads it may die, and another
//     go on where it left off.
//   - A Reader may be opened before there is a writer, and again after it left: what was written
//     meanwhile, up to the pipe's capacity, is there.
//
// Ends are opened by github.com/containerd/fifo. This package adds what it lacks: descriptors that a process can
// inherit, pairs of ends that have no gap between them, a refusal of what is not a FIFO before it is opened, a
// reading end that is there before its first writer, and a wait for a reader that holds no thread.
//
// Caveats: Linux only. Bytes in a FIFO live as long as anybody has it open. Two readers of one
// FIFO share its bytes between them.
package fifo
