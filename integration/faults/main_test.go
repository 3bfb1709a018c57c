// Package faults interrupts the daemon, shims, clients and the disk at every step, and checks what is left,
// published and recovered.
package faults

import (
	"os"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m))
}
