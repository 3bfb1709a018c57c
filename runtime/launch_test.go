package runtime

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/bootstrap"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/runcopts"
	"github.com/cleatproject/cleat/proto/types"
)

func protobufAnswer(t testing.TB, r *bootstrap.BootstrapResult) []byte {
	t.Helper()
	data, err := rpc.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestParseStart_PublishedForms(t *testing.T) {
	for name, tc := range map[string]struct {
		out  []byte
		want address
		is   func(error) bool
	}{
		"bare address":         {out: []byte("unix:///run/s/abc\n"), want: address{2, "unix:///run/s/abc", "ttrpc", false, false}},
		"json":                 {out: []byte(`{"version":3,"address":"unix:///run/s/abc","protocol":"ttrpc"}`), want: address{3, "unix:///run/s/abc", "ttrpc", false, false}},
		"json claims to be us": {out: []byte(`{"version":3,"address":"unix:///run/s/abc","protocol":"ttrpc","cleat":true}`), want: address{3, "unix:///run/s/abc", "ttrpc", false, false}},
		"protobuf": {
			out:  protobufAnswer(t, &bootstrap.BootstrapResult{Version: 3, Address: "unix:///run/s/abc", Protocol: "ttrpc"}),
			want: address{3, "unix:///run/s/abc", "ttrpc", false, false},
		},
		"empty":          {is: errdefs.IsUnknown},
		"abstract":       {out: []byte("unix://@abstract"), is: errdefs.IsInvalidArgument},
		"relative":       {out: []byte("s/abc"), is: errdefs.IsInvalidArgument},
		"vsock":          {out: []byte("vsock://3:1024"), is: errdefs.IsInvalidArgument},
		"future version": {out: []byte(`{"version":4,"address":"unix:///run/s/abc","protocol":"ttrpc"}`), is: errdefs.IsNotImplemented},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseStart(tc.out)
			if tc.is != nil {
				if !tc.is(err) {
					t.Fatalf("got %+v, %v", got, err)
				}
				return
			}
			if err != nil || got != tc.want {
				t.Fatalf("got %+v, %v; want %+v", got, err, tc.want)
			}
		})
	}
}

func TestJoinAddress(t *testing.T) {
	for _, tc := range []struct {
		text    string
		version uint32
		want    address
		is      func(error) bool
	}{
		{text: "ttrpc+unix:///run/s/abc", want: address{3, "unix:///run/s/abc", "ttrpc", false, true}},
		{text: "unix:///run/s/a+b", version: 2, want: address{2, "unix:///run/s/a+b", "ttrpc", false, true}},
		{text: "grpc+vsock://3:1024", is: errdefs.IsInvalidArgument},
		{text: "ttrpc+unix://@abstract", is: errdefs.IsInvalidArgument},
		{text: "ttrpc+unix:///run/s/abc", version: 9, is: errdefs.IsNotImplemented},
	} {
		got, err := joinAddress(tc.text, tc.version)
		if tc.is != nil && !tc.is(err) || tc.is == nil && (err != nil || got != tc.want) {
			t.Errorf("%s, version %d: %+v, %v", tc.text, tc.version, got, err)
		}
	}
}

func FuzzParseStart(f *testing.F) {
	f.Add([]byte("unix:///run/s/abc"))
	f.Add([]byte(`{"version":3,"address":"unix:///x"}`))
	f.Add(protobufAnswer(f, &bootstrap.BootstrapResult{Version: 3, Address: "unix:///x", Protocol: "ttrpc"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := parseStart(data)
		if err != nil {
			return
		}
		if path, err := rpc.SocketPath(a.Address); err != nil || !filepath.IsAbs(path) || a.Native || a.Version < 2 || a.Version > 3 {
			t.Fatalf("accepted %+v: %v", a, err)
		}
	})
}

func TestBinaryName(t *testing.T) {
	for in, want := range map[string]string{
		"io.containerd.runc.v2":  "containerd-shim-runc-v2",
		"io.containerd.cleat.v2": "containerd-shim-cleat-v2",
		"kata.v2":                "containerd-shim-kata-v2",
		"runc":                   "",
		"":                       "",
		"a..b":                   "",
		"../x.v2":                "",
		"a.b/../../c":            "",
	} {
		got, err := binaryName(in)
		if got != want || (err == nil) != (want != "") || err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{nativeBinary, "containerd-shim-other-v1", "custom"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", t.TempDir())
	m := &Manager{cfg: Config{
		Binary: filepath.Join(dir, "cleatd"),
		Runtimes: map[string]string{
			"io.containerd.runc.v2": NativeRuntime,
			"io.example.custom.v1":  filepath.Join(dir, "custom"),
		},
	}}
	for in, want := range map[string]string{
		"":                           nativeBinary,
		NativeRuntime:                nativeBinary,
		"io.containerd.runc.v2":      nativeBinary,
		"io.example.custom.v1":       "custom",
		"io.containerd.other.v1":     "containerd-shim-other-v1",
		filepath.Join(dir, "custom"): "custom",
		filepath.Join(dir, "absent"): "",
		"io.containerd.absent.v1":    "",
		dir:                          "",
	} {
		got, err := m.resolve(in)
		if want == "" {
			if !errdefs.IsNotFound(err) {
				t.Errorf("%q: %q, %v", in, got, err)
			}
			continue
		}
		if err != nil || got != filepath.Join(dir, want) {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func TestFillOptions(t *testing.T) {
	m := &Manager{cfg: Config{State: "/state"}}
	encoded := func(o *runcopts.Options) *types.Any {
		a, err := encodeOptions(o)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for name, tc := range map[string]struct {
		in     *types.Any
		binary string
		root   string // "" for unchanged
	}{
		"none, native":   {binary: "/x/" + nativeBinary, root: "/state/runc"},
		"none, runc":     {binary: "/x/containerd-shim-runc-v2", root: "/state/runc"},
		"none, foreign":  {binary: "/x/containerd-shim-kata-v2"},
		"without a root": {in: encoded(&runcopts.Options{BinaryName: "crun"}), binary: "/x/" + nativeBinary, root: "/state/runc"},
		"with a root":    {in: encoded(&runcopts.Options{Root: "/mine"}), binary: "/x/" + nativeBinary},
		"another type":   {in: &types.Any{TypeUrl: "x", Value: []byte("y")}, binary: "/x/" + nativeBinary},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := m.fillOptions(LaunchOptions{Options: tc.in}, tc.binary)
			if err != nil {
				t.Fatal(err)
			}
			if tc.root == "" {
				if got != tc.in {
					t.Fatalf("changed to %v", got)
				}
				return
			}
			var o runcopts.Options
			if err := o.Unmarshal(got.Value); err != nil || o.Root != tc.root {
				t.Fatalf("%+v, %v", o, err)
			}
		})
	}
	bad := &types.Any{TypeUrl: runcOptionsURL, Value: []byte{0xff}}
	if _, err := m.fillOptions(LaunchOptions{Options: bad}, nativeBinary); !errdefs.IsInvalidArgument(err) {
		t.Fatal(err)
	}
}

func TestBundle(t *testing.T) {
	base := t.TempDir()
	m := &Manager{cfg: Config{State: filepath.Join(base, "state"), Root: filepath.Join(base, "root")}}
	b := m.bundleOf("ns", "id")
	if err := errors.Join(b.create("rt", "/bin/shim"), b.writeSpec([]byte(`{"a":1}`))); err != nil {
		t.Fatal(err)
	}
	if err := b.create("", ""); !errdefs.IsAlreadyExists(err) {
		t.Fatalf("second bundle of one name: %v", err)
	}
	if got := b.read("config.json"); got != `{"a":1}` {
		t.Fatalf("config.json: %q", got)
	}
	if b.read(runtimeFile) != "rt" || b.read(shimBinaryFile) != "/bin/shim" || b.has(pendingMarker) {
		t.Fatal("files are missing")
	}
	if link, err := os.Readlink(b.file("work")); err != nil || link != b.work {
		t.Fatal(link, err)
	}
	info, err := os.Stat(b.path)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Fatal(info.Mode(), err)
	}
	want := address{Version: 3, Address: "unix:///x", Protocol: "ttrpc", Native: true}
	if err := b.writeAddress(want); err != nil {
		t.Fatal(err)
	}
	if got, err := b.readAddress(); err != nil || got != want {
		t.Fatal(got, err)
	}
	data, err := os.ReadFile(b.file(bootstrapFile))
	if err != nil || !json.Valid(data) {
		t.Fatal(string(data), err)
	}
	for range 2 {
		if err := b.remove(); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{filepath.Dir(b.path), filepath.Dir(b.work)} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Fatal(left, err)
		}
	}
}

func TestBundles_RemovesIncomplete(t *testing.T) {
	base := t.TempDir()
	m := &Manager{cfg: Config{State: filepath.Join(base, "state"), Root: filepath.Join(base, "root")}}
	b := m.bundleOf("ns", "whole")
	if err := b.create("", ""); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(filepath.Dir(b.path), ".half-ABCDEFGH")
	if err := os.MkdirAll(filepath.Join(half, "rootfs", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	orphan := filepath.Join(filepath.Dir(b.work), "orphan")
	if err := os.MkdirAll(orphan, 0o700); err != nil {
		t.Fatal(err)
	}
	found, _, err := m.bundles()
	if err != nil || len(found) != 1 || found[0].path != b.path {
		t.Fatal(found, err)
	}
	for _, dir := range []string{half, orphan} {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestReadAddress_OlderFile(t *testing.T) {
	b := &bundle{path: t.TempDir()}
	if _, err := b.readAddress(); !gone(err) {
		t.Fatalf("a bundle without an address: %v", err)
	}
	if err := os.WriteFile(b.file("address"), []byte("unix:///old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := address{Version: 2, Address: "unix:///old", Protocol: "ttrpc"}
	if got, err := b.readAddress(); err != nil || got != want {
		t.Fatal(got, err)
	}
}
