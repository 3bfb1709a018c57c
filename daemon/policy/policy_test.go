package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/runcopts"
)

func denied(err error, field string) bool {
	return err != nil && reason.Of(err) == reason.PolicyDenied && strings.HasPrefix(err.Error(), field)
}

func TestOptions_RefusesPathsAndPrivileges(t *testing.T) {
	p := &Policy{UID: user, Runtimes: []string{"/usr/bin/runsc"}}
	for field, o := range map[string]*runcopts.Options{
		"options.binary_name":      {BinaryName: "/tmp/evil"},
		"options.no_pivot_root":    {NoPivotRoot: true},
		"options.no_new_keyring":   {NoNewKeyring: true},
		"options.shim_cgroup":      {ShimCgroup: "/"},
		"options.root":             {Root: "/x"},
		"options.criu_image_path":  {CriuImagePath: "/x"},
		"options.criu_work_path":   {CriuWorkPath: "/x"},
		"options.task_api_address": {TaskApiAddress: "unix:///x"},
		"options.systemd_cgroup":   {SystemdCgroup: true},
		"":                         {BinaryName: "/usr/bin/runsc"},
	} {
		raw, err := rpc.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Options(runcOptions, raw); (field == "") != (err == nil) || field != "" && !denied(err, field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if err := p.Options("runtimeoptions.v1.Options", []byte{1}); !denied(err, "options") {
		t.Errorf("options of another type: %v", err)
	}
	if err := p.Options("", nil); err != nil {
		t.Errorf("no options: %v", err)
	}
}

func TestStdio_AllowsOwnFIFOsOnly(t *testing.T) {
	dir := t.TempDir()
	fifo := func(name string, owner int) string {
		path := filepath.Join(dir, name)
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, owner, owner); err != nil {
			t.Fatal(err)
		}
		return path
	}
	own, other := fifo("own", user), fifo("other", 0)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(file, user, user); err != nil {
		t.Fatal(err)
	}
	p := &Policy{UID: user}
	if err := p.Stdio(own, own, ""); err != nil {
		t.Error(err)
	}
	if err := p.Stdio("", "fifo://"+own, own); err != nil {
		t.Error(err)
	}
	for _, uri := range []string{
		other, file, "file://" + file, "binary:///bin/sh", "relative", filepath.Join(dir, "none"), "fifo://" + own + "?x=1", "xyz://" + own,
	} {
		for field, err := range map[string]error{"stdin": p.Stdio(uri, "", ""), "stdout": p.Stdio("", uri, ""), "stderr": p.Stdio("", "", uri)} {
			if !denied(err, field) {
				t.Errorf("%s %s: %v", field, uri, err)
			}
		}
	}
}

func TestLabels_RefusesThoseOfDaemon(t *testing.T) {
	p := &Policy{UID: user}
	for key, ok := range map[string]bool{
		"a": true, "containerd.io/restart.policy": true, "cleat.io/stop-signal": true, "containerd.io/gc.root": true,
		"containerd.io/restart.loguri": false, "containerd.io/restart.logpath": false, "cleat.io/mount": false,
		"cleat.io/frozen": false, "containerd.io/defaults/runtime": false, "containerd.io/namespace.shareable": false,
	} {
		if err := p.Labels(map[string]string{key: "x"}); ok != (err == nil) || !ok && !denied(err, "labels") {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestRuntime(t *testing.T) {
	p := &Policy{UID: user, Default: "io.containerd.cleat.v2", Runtimes: []string{"io.containerd.kata.v2"}}
	for name, ok := range map[string]bool{
		"": true, "io.containerd.runc.v2": true, "io.containerd.cleat.v2": true, "io.containerd.kata.v2": true,
		"io.containerd.other.v1": false, "/tmp/shim": false, "../x": false,
	} {
		if err := p.Runtime(name); ok != (err == nil) || !ok && !denied(err, "runtime") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestResources_OfUpdate(t *testing.T) {
	p := &Policy{UID: user}
	if _, err := p.ResourcesOf([]byte(`{"memory":{"limit":1048576}}`)); err != nil {
		t.Error(err)
	}
	for _, raw := range []string{
		`{"devices":[{"allow":true,"access":"rwm"}]}`, `{"Devices":[{"allow":true,"type":"b","major":8,"minor":0,"access":"r"}]}`,
		`{"unified":{"cgroup.procs":"1"}}`,
	} {
		if _, err := p.ResourcesOf([]byte(raw)); !denied(err, "linux.resources") {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestCheck_RefusesInvalidPolicies(t *testing.T) {
	for _, p := range []Policy{{Mounts: []string{"relative"}}, {Mounts: []string{"/a/../b"}}, {Flags: []Flag{"everything"}}} {
		if err := p.Check(); err == nil {
			t.Errorf("%+v: no error", p)
		}
	}
	if err := (&Policy{Mounts: []string{"/srv"}, Flags: Flags()}).Check(); err != nil {
		t.Error(err)
	}
}
