// Package peers tests the products that users replace or keep: containerd, dockerd, their shims, and other OCI
// runtimes.
package peers

import (
	"os"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m))
}
