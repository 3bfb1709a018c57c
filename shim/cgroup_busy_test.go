package shim_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cleatproject/cleat/proto/runcopts"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// lingering is runc, but on its first delete a process stays in the container's cgroups for longer than
// runc waits.
func lingering(t *testing.T, d *daemon, cgroup string) *types.Any {
	t.Helper()
	script := filepath.Join(d.state, "lingering")
	text := fmt.Sprintf(`#!/bin/busybox sh
case " $* " in *" delete "*)
	if [ ! -e %[1]s/lingered ]; then
		(for g in /sys/fs/cgroup/*%[2]s /sys/fs/cgroup%[2]s; do
			[ ! -e $g/cgroup.procs ] || echo 0 > $g/cgroup.procs
		done
		touch %[1]s/lingered; exec sleep 1) </dev/null >/dev/null 2>&1 &
		until [ -e %[1]s/lingered ]; do :; done
	fi;;
esac
exec runc "$@"
`, d.state, cgroup)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return optionsAny(t, &runcopts.Options{BinaryName: script})
}

// runc leaves a cgroup that is in use for long, and has deleted its state by then. The shim and the verb
// delete remove it nevertheless.
func TestCgroups_LeftLate_Removed(t *testing.T) {
	for _, dead := range []bool{false, true} {
		t.Run(fmt.Sprint("by the verb ", dead), func(t *testing.T) {
			d := newDaemon(t)
			s := launch(t, d, "late", args("sleep", "1000"))
			path := specCgroupPath(t, s.bundle)
			req := s.request()
			req.Options = lingering(t, d, path)
			s.run(req)
			if len(cgroupsAt(t, path)) == 0 {
				t.Fatalf("the container has no cgroup %s", path)
			}
			if dead {
				if err := s.cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				s.exited <- <-s.exited // for the end of the test
				cleanUp(t, s)
			} else {
				must[types.Empty](within(t), s, "Kill", &task.KillRequest{Id: s.id, Signal: 9})
				s.wait()
				s.remove()
			}
			if _, err := os.Stat(filepath.Join(d.state, "lingered")); err != nil {
				t.Errorf("no process lingered: %v", err)
			}
			if left := cgroupsAt(t, path); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}
