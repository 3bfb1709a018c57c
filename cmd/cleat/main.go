// Command cleat is the command line of cleatd: it runs containers and looks after them. See
// `cleat help`.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/containerd/log"
)

func main() {
	// A reader of the output that went away is noticed by the write, and a container's end then is
	// up to run.
	signal.Ignore(syscall.SIGPIPE)
	// What ttrpc has to say of its connections is not for the user.
	log.L.Logger.SetOutput(io.Discard)
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: os.Getenv}
	os.Exit(a.run(context.Background(), os.Args[1:]))
}
