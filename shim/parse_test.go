package shim

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/bootstrap"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/types"
)

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
	f.Add("", `{"version":1,"id":"a","binary":"runc","root":"/r","pid":1,"started_at":"2026-01-02T03:04:05Z"}`)
	f.Fuzz(func(t *testing.T, spec, handle string) {
		_, _ = execSpec([]byte(spec), true)
		if h, err := parseHandle([]byte(handle)); err == nil && (h.ID == "" || h.Root == "") {
			t.Error("a handle without what makes it one")
		}
	})
}
