package doctor

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatproject/cleat/snapshot/snapshottest"
)

// TestDoctor_ReportsSnapshotters has a root on ext4 that keeps no quotas.
func TestDoctor_ReportsSnapshotters(t *testing.T) {
	cfg := patient(t)
	cfg.Root = filepath.Join(snapshottest.On(t, "ext4")(t), "root")
	if err := os.Mkdir(cfg.Root, 0o700); err != nil {
		t.Fatal(err)
	}
	look := func() (report string, findings int) {
		t.Helper()
		var out bytes.Buffer
		findings, err := Run(t.Context(), cfg, Options{}, &out)
		if err != nil {
			t.Fatal(err)
		}
		return out.String(), findings
	}
	report, before := look()
	for _, want := range []string{
		"note: snapshotter aufs does not work on this host: aufs has left the Linux kernel",
		"note: snapshotter btrfs does not work on this host", "not on btrfs",
		"fine: snapshotter overlayfs works, without limits of storage", "does not keep project quotas",
		"fine: snapshotter native works", "snapshotter erofs works, without limits of storage\n",
	} {
		if !strings.Contains(report, want) {
			t.Errorf("it does not say %q:\n%s", want, report)
		}
	}
	if left, err := os.ReadDir(cfg.Root); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	cfg.Snapshotter = "aufs"
	if report, findings := look(); findings != before+1 || !strings.Contains(report, "finding: the snapshotter aufs does not work") {
		t.Errorf("with a default that does not work, %d findings (%d before):\n%s", findings, before, report)
	}
}
