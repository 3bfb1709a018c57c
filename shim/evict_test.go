package shim_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDelete_UnreachableShim runs the verb delete for an unreachable shim: the shim is ended if it is the bundle's
// own, and the container is removed in any case.
func TestDelete_UnreachableShim(t *testing.T) {
	for name, own := range map[string]bool{"its shim": true, "another process holds the bundle": false} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t)
			s := launch(t, d, "unreached", args("sleep", "1000"))
			s.run(s.request())
			pid := int(s.native().Processes[0].Pid)
			if !own {
				s.kill9()
				s.exited <- nil // no shim follows it
				f, err := os.OpenFile(filepath.Join(s.bundle, "shim.pid"), os.O_RDWR|os.O_TRUNC, 0o600)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if _, err := f.WriteString(strconv.Itoa(os.Getpid())); err != nil {
					t.Fatal(err)
				}
				if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command(s.path, "-namespace", namespace, "-address", d.socket, "-publish-binary", "/none", "-id", s.id, "-bundle", s.bundle, "delete")
			cmd.Dir, cmd.Env = s.bundle, append(os.Environ(), "CLEAT_EVICT=1")
			out, err := cmd.CombinedOutput()
			if own && err != nil || !own && (err == nil || !strings.Contains(string(out), "not the shim of")) {
				t.Errorf("delete: %v: %s", err, out)
			}
			if own {
				end := <-s.exited
				s.exited <- end
			}
			eventually(t, func() bool { return syscall.Kill(pid, 0) != nil || zombie(pid) })
		})
	}
}
