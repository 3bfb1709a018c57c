// Command containerd-shim-cleat-v2 owns one container on behalf of cleatd, or of any daemon that
// starts shims by the runtime v2 protocol. See package shim.
package main

import (
	"fmt"
	"os"

	"github.com/cleatproject/cleat/internal/version"
	"github.com/cleatproject/cleat/shim"
)

func main() {
	if err := shim.Main(os.Args[1:], version.Version()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
