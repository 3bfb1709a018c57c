package native_test

import (
	"os"
	"testing"

	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/native"
	"github.com/cleatproject/cleat/snapshot/snapshottest"
)

func open(root string) (snapshot.Driver, error) { return native.Open(root) }

func TestConformance(t *testing.T) {
	snapshottest.Run(t, snapshottest.Config{Open: open, Copies: true})
}

// TestConformanceWithSharedContents is on file systems that share the contents of copies.
func TestConformanceWithSharedContents(t *testing.T) {
	for name, args := range map[string][]string{
		"btrfs": {"-q"},
		"xfs":   {"-q", "-m", "reflink=1"},
	} {
		t.Run(name, func(t *testing.T) {
			base := snapshottest.Filesystem(t, name, 512, "", args...)
			snapshottest.Run(t, snapshottest.Config{Open: open, Root: func(t *testing.T) string {
				t.Helper()
				dir, err := os.MkdirTemp(base, "root-")
				if err != nil {
					t.Fatal(err)
				}
				return dir
			}})
		})
	}
}
