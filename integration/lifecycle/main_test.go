// Package lifecycle tests the life of containers: start, execs, streams, checkpoints, limits of users,
// sandboxes, cgroups.
package lifecycle

import (
	"os"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

func TestMain(m *testing.M) {
	if os.Getenv(ignoringEnv) != "" {
		os.Exit(becomeIgnoring(os.Args[1:]))
	}
	os.Exit(harness.Main(m))
}
