package images

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cleatproject/cleat/metadata"
)

func TestStaleMounts(t *testing.T) {
	own, err := os.Readlink("/proc/self/ns/mnt")
	must(t, err)
	now := time.Now()
	dir := t.TempDir()
	for name, c := range map[string]struct {
		labels map[string]string
		age    time.Duration
		want   string
	}{
		"no mount":              {nil, time.Hour, ""},
		"an earlier boot":       {map[string]string{labelMount: dir, labelMountNamespace: own, labelMountBoot: "x"}, 0, "anew"},
		"a client under way":    {map[string]string{labelMount: dir, labelMountNamespace: own, labelMountBoot: bootID()}, time.Second, ""},
		"never mounted":         {map[string]string{labelMount: dir, labelMountNamespace: own, labelMountBoot: bootID()}, time.Hour, "nothing is mounted"},
		"mounted":               {map[string]string{labelMount: "/proc", labelMountNamespace: own, labelMountBoot: bootID()}, time.Hour, ""},
		"a client that did not": {map[string]string{labelMount: dir, labelMountBoot: bootID()}, time.Hour, ""},
	} {
		got := StaleMount(metadata.Snapshot{Labels: c.labels, CreatedAt: now.Add(-c.age)}, now)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestMountNamespaceLives(t *testing.T) {
	proc := t.TempDir()
	for pid, ns := range map[string]string{"1": "mnt:[1]", "20": "mnt:[2]"} {
		must(t, os.MkdirAll(filepath.Join(proc, pid, "ns"), 0o755))
		must(t, os.Symlink(ns, filepath.Join(proc, pid, "ns", "mnt")))
	}
	if !mountNamespaceLives(proc, "mnt:[2]") || mountNamespaceLives(proc, "mnt:[3]") {
		t.Error("it does not distinguish them")
	}
	// What cannot be read may be the one.
	must(t, os.MkdirAll(filepath.Join(proc, "3", "ns", "mnt"), 0o755))
	if !mountNamespaceLives(proc, "mnt:[3]") {
		t.Error("it takes what it cannot read for another")
	}
}
