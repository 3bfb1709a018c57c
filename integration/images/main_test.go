// Package images tests images: import, export, commit, conversion, differences, mounts, garbage collection and
// quotas.
package images

import (
	"os"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m))
}
