package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// BinariesEnv names the environment variable with the directory of the binaries under test. Users of any id have to
// be able to run them.
const BinariesEnv = "CLEAT_BINARIES"

// built is the directory of the binaries if Main built them.
var built string //nolint:gochecknoglobals // set once, before the tests run

// Binaries returns the directory of the binaries under test.
func Binaries() string {
	if dir := os.Getenv(BinariesEnv); dir != "" {
		return dir
	}
	return built
}

// Binary returns the path of a binary under test.
func Binary(name string) string { return filepath.Join(Binaries(), name) }

// Main runs the tests of a package and returns the code to exit with. If the environment names no binaries, it builds
// them from the tree that the working directory belongs to.
func Main(m *testing.M) int {
	if Binaries() != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "cleat-bin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	built = dir
	return m.Run()
}

func build(dir string) error {
	root, err := productRoot()
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-o", dir, "./cmd/...")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the product: %w\n%s", err, out)
	}
	return nil
}

// productRoot returns the directory above the working directory that has the commands of the product.
func productRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "cmd", "cleatd")); !errors.Is(err, fs.ErrNotExist) {
			return dir, err
		}
		if dir == "/" {
			return "", errors.New("find the product: not in a directory of its tree")
		}
		dir = filepath.Dir(dir)
	}
}
