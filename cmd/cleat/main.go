// Command cleat is the command line of cleatd: it runs containers and looks after them. See
// `cleat help`.
package main

import (
	"context"
	"os"
)

func main() {
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: os.Getenv}
	os.Exit(a.run(context.Background(), os.Args[1:]))
}
