package shim_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cleatproject/cleat/internal/durable"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// The verb delete cleans up after a dead shim, as often as it is called.
func TestDelete_DeadShim(t *testing.T) {
	for _, ended := range []bool{false, true} {
		t.Run("container ended "+strconv.FormatBool(ended), func(t *testing.T) {
			d := newDaemon(t)
			command := args("sleep", "1000")
			if ended {
				command = args("sh", "-c", "exit 3")
			}
			s := launch(t, d, "dead", command)
			req := s.request()
			lower := filepath.Join(d.state, "lower")
			if err := durable.RenameUnsynced(filepath.Join(s.bundle, "rootfs"), lower); err != nil {
				t.Fatal(err)
			}
			req.Rootfs = []*types.Mount{{Type: "bind", Source: lower, Options: []string{"rbind", "rw"}}}
			s.run(req)
			want := uint32(137)
			if ended {
				s.wait()
				want = 3
			}
			pid := int(must[task.StateResponse](within(t), s, "State", &task.StateRequest{Id: s.id}).Pid)
			if err := s.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			err := <-s.exited
			s.exited <- err
			path, err := binary()
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				cmd := exec.Command(path, "-namespace", namespace, "-address", d.socket, "-publish-binary", "/none", "-id", s.id, "-bundle", s.bundle, "delete")
				cmd.Dir = s.bundle
				out, err := cmd.Output()
				if err != nil {
					t.Fatal(err)
				}
				var resp task.DeleteResponse
				if err := resp.Unmarshal(out); err != nil || resp.ExitStatus != want || int(resp.Pid) != pid || resp.ExitedAt == nil {
					t.Errorf("answer %+v, %v", resp, err)
				}
			}
			eventually(t, func() bool { return syscall.Kill(pid, 0) != nil || zombie(pid) })
		})
	}
}

// zombie reports whether a process is dead: the orphan of a killed shim is collected by pid 1,
// which may take its time.
func zombie(pid int) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(data), ") Z ")
}

// cleanUp runs the verb delete.
func cleanUp(t *testing.T, s *shimUnder) {
	t.Helper()
	cmd := exec.Command(s.path, "-namespace", namespace, "-address", s.daemon.socket, "-publish-binary", "/none", "-id", s.id, "-bundle", s.bundle, "delete")
	cmd.Dir = s.bundle
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("delete: %v: %s", err, out)
	}
}
