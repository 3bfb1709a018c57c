// Package lifecycle tests the life of containers: start, execs, streams, checkpoints, limits of users,
// sandboxes, cgroups.
package lifecycle

import (
	"fmt"
	"os"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

func TestMain(m *testing.M) {
	if os.Getenv(ignoringEnv) != "" {
		fmt.Fprintln(os.Stderr, becomeIgnoring(os.Args[1:]))
		os.Exit(1)
	}
	os.Exit(harness.Main(m))
}
