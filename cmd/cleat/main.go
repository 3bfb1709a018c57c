//go:build !docgen

// Command cleat is the command line of cleatd: it runs and manages containers. See `cleat help`.
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
	// A write to an output without a reader must return an error, so that run can end its container.
	signal.Ignore(syscall.SIGPIPE)
	// The messages of ttrpc about its connections are not for the user.
	log.L.Logger.SetOutput(io.Discard)
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: os.Getenv}
	os.Exit(a.run(context.Background(), os.Args[1:]))
}
