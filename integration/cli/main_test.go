// Package cli tests the command line: the tours of the documentation, its examples, completion, hints and lists.
package cli

import (
	"os"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m))
}
