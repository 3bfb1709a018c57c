package mount_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/cleatproject/cleat/mount"
)

// Attach a small memory file system below a directory, use it, and remove it.
func Example() {
	root, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.Remove(root) }()

	scratch := mount.Mount{Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1m", "nosuid", "nodev"}}
	if err := mount.All([]mount.Mount{scratch}, root); err != nil {
		fmt.Println(err)
		return
	}
	if err := os.WriteFile(filepath.Join(root, "note"), []byte("in memory"), 0o600); err != nil {
		fmt.Println(err)
	}
	if err := mount.UnmountAll(root, 0); err != nil {
		fmt.Println(err)
	}
	_, err = os.Stat(filepath.Join(root, "note"))
	fmt.Println("gone:", os.IsNotExist(err))
	// Output: gone: true
}
