package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// binaries is the directory of the product's binaries, which TestMain builds.
var binaries string

func TestMain(m *testing.M) {
	if os.Getenv(ignoringEnv) != "" {
		os.Exit(becomeIgnoring(os.Args[1:]))
	}
	os.Exit(run(m))
}

// binariesEnv names it for a test that runs in a guest.
const binariesEnv = "CLEAT_TEST_BINARIES"

// run builds the binaries and runs the tests.
func run(m *testing.M) int {
	if binaries = os.Getenv(binariesEnv); binaries != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "cleat-bin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"cleat", "cleatd", "containerd-shim-cleat-v2"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, name), "../cmd/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", name, err, out)
			return 1
		}
	}
	binaries = dir
	return m.Run()
}
