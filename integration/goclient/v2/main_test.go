package goclient

import (
	"os"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }
