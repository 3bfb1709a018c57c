package lifecycle

import (
	"os"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

// StartBehind is Start through a program that becomes the daemon: it gets the daemon's command line as further
// arguments.
func StartBehind(t *testing.T, program ...string) *harness.Daemon {
	t.Helper()
	base, err := os.MkdirTemp("", "cleat-it")
	if err != nil {
		t.Fatal(err)
	}
	d := harness.NewDaemon(t, base)
	d.Behind = program
	d.Begin()
	return d
}
