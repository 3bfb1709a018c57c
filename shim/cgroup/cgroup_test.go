package cgroup

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestParseCgroup(t *testing.T) {
	text := "9:memory:/a/b\n4:cpu,cpuacct:/c\n1:name=systemd:/d\n0::/e\nrubbish\n"
	if got, want := Parse(text, false).V1, map[string]string{
		"memory": "/sys/fs/cgroup/memory/a/b", "cpu": "/sys/fs/cgroup/cpu/c", "cpuacct": "/sys/fs/cgroup/cpuacct/c",
		"name=systemd": "/sys/fs/cgroup/systemd/d",
	}; !reflect.DeepEqual(got, want) {
		t.Errorf("v1: %v", got)
	}
	if got := Parse(text, true); got.Unified != "/sys/fs/cgroup/e" || got.V1 != nil {
		t.Errorf("v2: %+v", got)
	}
}

func TestSpecCgroup(t *testing.T) {
	for spec, want := range map[string]string{
		`{"linux": {"cgroupsPath": "/a/b"}}`:                   "/a/b",
		`{"linux": {"cgroupsPath": "/../../etc"}}`:             "/etc",
		`{"linux": {"cgroupsPath": "system.slice:cleat:web"}}`: "",
		`{}`: "",
	} {
		bundle := t.TempDir()
		if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(spec), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := specified(bundle); got != want {
			t.Errorf("%s: %q", spec, got)
		}
	}
}

func TestExiting_ProcessInRootCgroup(t *testing.T) {
	for text, want := range map[string]bool{
		"9:memory:/\n8:pids:/\n0::/\n": true, "9:memory:/a\n8:pids:/\n0::/\n": false, "0::/a\n": false, "": false,
	} {
		if got := Exiting(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func FuzzFiles(f *testing.F) {
	f.Add("9:memory:/a\n", "some avg10=0.00 total=1\n", "8:0 rbytes=1\n")
	f.Fuzz(func(_ *testing.T, a, b, c string) {
		Parse(a, true)
		Parse(a, false)
		pressure(b)
		blkioEntries(c)
		rdmaV1(c)
	})
}
