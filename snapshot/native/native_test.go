package native_test

import (
	"testing"

	"github.com/cleatproject/cleat/internal/guest"
	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/native"
	"github.com/cleatproject/cleat/snapshot/snapshottest"
)

func open(root string) (snapshot.Driver, error) { return native.Open(root) }

func TestConformance(t *testing.T) {
	snapshottest.Run(t, snapshottest.Config{Open: open, Copies: true, Root: snapshottest.On(t, "ext4")})
}

// It runs on file systems that share the contents of copies.
func TestConformance_SharedContents(t *testing.T) {
	for name, args := range map[string][]string{"btrfs": nil, "xfs": {"-m", "reflink=1"}} {
		t.Run(name, func(t *testing.T) {
			snapshottest.Run(t, snapshottest.Config{Open: open, Root: snapshottest.On(t, name, args...)})
		})
	}
}

func TestLimits(t *testing.T) {
	if !guest.Inside(t, guest.Options{}) {
		return
	}
	for _, on := range snapshottest.WithProjectQuotas(t) {
		t.Run(on.Type, func(t *testing.T) {
			snapshottest.RunLimits(t, snapshottest.Config{Open: open, Copies: true, Root: on.Dir})
		})
	}
}

func TestNoLimits(t *testing.T) {
	snapshottest.RunNoLimits(t, snapshottest.Config{Open: open, Root: snapshottest.On(t, "ext4")})
}
