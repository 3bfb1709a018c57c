package shim

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/bootstrap"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/types"
)

func TestParseTarget(t *testing.T) {
	for in, want := range map[string]target{
		"":                             {kind: toNull},
		"/run/fifo":                    {kind: toFIFO, path: "/run/fifo"},
		"fifo:///run/f":                {kind: toFIFO, path: "/run/f"},
		"file:///var/log/a%20b":        {kind: toFile, path: "/var/log/a b"},
		"binary:///bin/log?a=1&b=2&c=": {kind: toLogger, path: "/bin/log"},
	} {
		got, err := parseTarget(in)
		got.args = nil
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"relative", "file://relative", "http:///x", "binary://", "file:///%zz"} {
		if got, err := parseTarget(in); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	got, err := parseTarget("binary:///bin/log?b=2&a=1&c")
	if err != nil || !reflect.DeepEqual(loggerArgs(got), []string{"a", "1", "b", "2", "c"}) {
		t.Errorf("arguments %q, %v", loggerArgs(got), err)
	}
}

func TestReadParams(t *testing.T) {
	cfg := Config{ID: "web", Namespace: "default"}
	marshal := func(m rpc.Message) string {
		data, err := rpc.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	for name, c := range map[string]struct {
		in    string
		newer bool
	}{
		"nothing":  {"", false},
		"rubbish":  {"\xff\xff\xff", false},
		"options":  {marshal(&types.Any{TypeUrl: optionsType, Value: []byte{1}}), false},
		"params":   {marshal(&bootstrap.BootstrapParams{InstanceId: "web", Namespace: "default"}), true},
		"stranger": {marshal(&bootstrap.BootstrapParams{InstanceId: "other", Namespace: "default"}), false},
	} {
		p, err := readParams(cfg, strings.NewReader(c.in))
		if err != nil || (p != nil) != c.newer {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func TestParseCgroup(t *testing.T) {
	text := "9:memory:/a/b\n4:cpu,cpuacct:/c\n1:name=systemd:/d\n0::/e\nrubbish\n"
	if got, want := parseCgroup(text, false).v1, map[string]string{
		"memory": "/sys/fs/cgroup/memory/a/b", "cpu": "/sys/fs/cgroup/cpu/c", "cpuacct": "/sys/fs/cgroup/cpuacct/c",
		"name=systemd": "/sys/fs/cgroup/systemd/d",
	}; !reflect.DeepEqual(got, want) {
		t.Errorf("v1: %v", got)
	}
	if got := parseCgroup(text, true); got.unified != "/sys/fs/cgroup/e" || got.v1 != nil {
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
		if got := specCgroup(bundle); got != want {
			t.Errorf("%s: %q", spec, got)
		}
	}
}

func TestClassOf(t *testing.T) {
	for msg, want := range map[string]error{
		`unable to start container process: exec: "nope": executable file not found in $PATH`:     errdefs.ErrNotFound,
		`unable to start container process: exec: "/nope": stat /nope: no such file or directory`: errdefs.ErrNotFound,
		`unable to start container process: exec: "/etc": permission denied`:                      errdefs.ErrPermissionDenied,
		`container with given ID already exists`:                                                  errdefs.ErrAlreadyExists,
		`container does not exist`:                                                                errdefs.ErrNotFound,
		`cannot pause container: container not running`:                                           errdefs.ErrFailedPrecondition,
		`invalid CPU quota`: errdefs.ErrInvalidArgument,
		``:                  errdefs.ErrUnknown,
	} {
		if got := classOf(msg); !errors.Is(got, want) {
			t.Errorf("%q: %v, want %v", msg, got, want)
		}
	}
}

func TestSocketPaths_AreShort(t *testing.T) {
	long := "/" + strings.Repeat("d", 200)
	dir := t.TempDir()
	for _, c := range []struct{ address, dir, want string }{
		{dir + "/containerd.sock", "", dir + "/s/"},
		{long + "/containerd.sock", "", fallbackSocketDir + "/"},
		{"", dir, dir + "/"},
	} {
		got, err := socketPath(Config{Address: c.address, Namespace: strings.Repeat("n", 76), ID: strings.Repeat("i", 76)}, c.dir)
		if err != nil || !strings.HasPrefix(got, c.want) || len(got) > longestSocket {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
}

func TestHandles(t *testing.T) {
	for text, ok := range map[string]bool{
		`{"version":1,"id":"a","binary":"runc","root":"/r"}`:                                 true, // of an older shim
		`{"version":1,"id":"a","binary":"runc","root":"/r","pid":7,"start_time":8,"new":{}}`: true, // of a newer one
		`{"version":2,"id":"a","binary":"runc","root":"/r"}`:                                 false,
		`{"version":1,"id":"a","binary":"runc","root":"r"}`:                                  false,
		`{"version":1,"id":"a","bin`:                                                         false,
		``:                                                                                   false,
	} {
		if _, err := parseHandle([]byte(text)); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzParsers(f *testing.F) {
	f.Add("9:memory:/a\n", "some avg10=0.00 total=1\n", "8:0 rbytes=1\n")
	f.Add("", "", `{"version":1,"id":"a","binary":"runc","root":"/r","pid":1,"started_at":"2026-01-02T03:04:05Z"}`)
	f.Fuzz(func(t *testing.T, a, b, c string) {
		parseCgroup(a, true)
		parseCgroup(a, false)
		pressure(b)
		blkioEntries(c)
		rdmaV1(c)
		_, _ = parseTarget(a)
		_, _ = execSpec([]byte(b), true)
		if h, err := parseHandle([]byte(c)); err == nil && (h.ID == "" || h.Root == "") {
			t.Error("a handle without what makes it one")
		}
	})
}

func TestExiting_ProcessInRootCgroup(t *testing.T) {
	for text, want := range map[string]bool{
		"9:memory:/\n8:pids:/\n0::/\n": true, "9:memory:/a\n8:pids:/\n0::/\n": false, "0::/a\n": false, "": false,
	} {
		if got := exiting(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
