package shim_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/runcopts"
	"github.com/cleatproject/cleat/proto/shimapi"
	"github.com/cleatproject/cleat/proto/task"
)

// specCgroupPath is the path of the cgroups that a bundle's spec names.
func specCgroupPath(t *testing.T, bundle string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var spec struct {
		Linux struct{ CgroupsPath string }
	}
	if err := json.Unmarshal(data, &spec); err != nil || spec.Linux.CgroupsPath == "" {
		t.Fatalf("cgroup of the spec: %+v, %v", spec, err)
	}
	return spec.Linux.CgroupsPath
}

// cgroupsOf lists the existing cgroups of a bundle's spec.
func cgroupsOf(t *testing.T, bundle string) []string {
	t.Helper()
	return cgroupsAt(t, specCgroupPath(t, bundle))
}

// cgroupsAt lists the existing cgroups of a path.
func cgroupsAt(t *testing.T, path string) []string {
	t.Helper()
	var found []string
	for _, base := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		dirs, err := filepath.Glob(filepath.Join(base, path))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, dirs...)
	}
	return found
}

// TestRuntimeKilled_BeforeRecordingCgroup has the OCI runtime die in create and run, alone or with the shim, after
// it has created cgroups and recorded nothing.
func TestRuntimeKilled_BeforeRecordingCgroup(t *testing.T) {
	const makeGroups = `for d in /sys/fs/cgroup /sys/fs/cgroup/*; do
	[ -e $d/cgroup.procs ] && mkdir -p $d$(sed -n 's/.*"cgroupsPath": *"\([^"]*\)".*/\1/p' config.json); done
touch made
`
	for name, tc := range map[string]struct {
		die  string
		call func(*shimUnder, *task.CreateTaskRequest) error
	}{
		"create": {"kill -9 $$", func(s *shimUnder, req *task.CreateTaskRequest) error {
			_, err := call[task.CreateTaskResponse](within(t), s, "Create", req)
			return err
		}},
		"run": {"kill -9 $$", func(s *shimUnder, req *task.CreateTaskRequest) error {
			_, err := rpc.Call[shimapi.RunResponse](within(t), s.client, shimapi.Service, "Run", &shimapi.RunRequest{Create: req})
			return err
		}},
		"with the shim": {"kill -9 $PPID; exit 1", func(s *shimUnder, req *task.CreateTaskRequest) error {
			_, err := call[task.CreateTaskResponse](within(t), s, "Create", req)
			end := <-s.exited
			s.exited <- end
			if groups := cgroupsOf(t, s.bundle); len(groups) == 0 {
				t.Error("there is nothing to clean up")
			}
			cleanUp(t, s)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t)
			script := filepath.Join(d.state, "dying")
			text := "#!/bin/busybox sh\ncase \" $* \" in *' create '*|*' run '*) " + makeGroups + tc.die + ";; esac\nexec runc \"$@\"\n"
			if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
			s := launch(t, d, "dying", args("sleep", "1000"))
			req := s.request()
			req.Options = optionsAny(t, &runcopts.Options{BinaryName: script})
			if err := tc.call(s, req); err == nil {
				t.Error("no error")
			}
			if _, err := os.Lstat(filepath.Join(s.bundle, "made")); err != nil {
				t.Fatal(err)
			}
			if groups := cgroupsOf(t, s.bundle); len(groups) != 0 {
				t.Errorf("cgroups are left: %q", groups)
			}
		})
	}
}
