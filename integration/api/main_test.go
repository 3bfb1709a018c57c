// Package api tests the published API, method by method, over gRPC and ttrpc: events, streams, transfers,
// limits, errors.
package api

import (
	"os"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m))
}
