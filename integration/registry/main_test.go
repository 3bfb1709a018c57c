// Package registry tests pull and push with registries: real ones, ones that fail, proxies and mirrors.
package registry

import (
	"os"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m))
}
