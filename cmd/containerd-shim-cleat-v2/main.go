// Command containerd-shim-cleat-v2 owns one container on behalf of cleatd, or of any daemon that
// starts shims by the runtime v2 protocol. See package shim.
package main

import (
	"fmt"
	"os"

	"github.com/cleatproject/cleat/shim"
)

// version is stamped by the linker.
var version = "dev"

func main() {
	if err := shim.Main(os.Args[1:], version); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
