package faults

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// TestDamagedDatabase_DaemonKeepsTasks damages the database of a running container. The daemon starts and adopts the
// task. Requests that need a record fail with a hint, and a repair restores the other records.
func TestDamagedDatabase_DaemonKeepsTasks(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	before := d.Ps("c")
	db := filepath.Join(d.Root, "meta.db")
	d.Kill9()
	backup, err := os.ReadFile(db)
	harness.Must(t, err)
	for name, damage := range map[string]func() error{
		"cut off":   func() error { return os.Truncate(db, 5000) },
		"emptied":   func() error { return os.Truncate(db, 0) },
		"gone":      func() error { return os.Remove(db) },
		"a flipped": func() error { return flip(db, 4096+40) },
	} {
		harness.Must(t, damage())
		harmed, _ := os.ReadFile(db) // missing, in one case
		d.Begin()
		checkWithoutRecords(d, name, uint32(before.Pid))
		d.Stop()
		if after, _ := os.ReadFile(db); string(after) != string(harmed) {
			t.Errorf("%s: the daemon changed the damaged database", name)
		}
		harness.Must(t, os.WriteFile(db, backup, 0o600))
	}
	if !harness.Alive(before.Pid) {
		t.Fatal("the container did not survive")
	}

	harness.Must(t, flip(db, olderMeta(backup)+40)) // all records are readable, but the last change may be lost
	if out, _, code := d.Try("doctor", "--root", d.Root, "--state", d.State); code != 1 || !strings.Contains(out, "--repair") {
		t.Errorf("doctor: code %d:\n%s", code, out)
	}
	if out, stderr, code := d.Try("doctor", "--repair", "--root", d.Root, "--state", d.State); code != 0 {
		t.Fatalf("doctor --repair: code %d:\n%s%s", code, out, stderr)
	}
	d.Begin()
	if c := d.Status("c", "running"); c.Pid != before.Pid {
		t.Errorf("pid %d became %d", before.Pid, c.Pid)
	}
	if got := d.Cleat("run", "--rm", "busybox", "echo", "well"); got != "well" {
		t.Errorf("a run after the repair prints %q", got)
	}
}

// checkWithoutRecords checks that the daemon has the task c, and that other requests fail with a hint.
func checkWithoutRecords(d *harness.Daemon, name string, pid uint32) {
	d.T.Helper()
	ctx, conn := fixture.GRPC(d)
	tasks := tasksapi.NewTasksClient(conn)
	d.Eventually(name+": the task is adopted", func() error {
		resp, err := tasks.Get(ctx, &tasksapi.GetRequest{ContainerID: "c"})
		if err != nil {
			return err
		}
		if p := resp.GetProcess(); p.GetPid() != pid || p.GetStatus() != tasktypes.Status_RUNNING {
			return os.ErrProcessDone
		}
		return nil
	})
	for _, args := range [][]string{{"ps"}, {"image", "ls"}, {"run", "--rm", "busybox", "true"}} {
		if _, stderr, code := d.Try(args...); code == 0 || !strings.Contains(stderr, "cleat doctor") {
			d.T.Errorf("%s: cleat %q: code %d, %s", name, args, code, stderr)
		}
	}
}

// olderMeta returns the offset of the older of bbolt's two meta pages, which has the lower transaction id.
func olderMeta(file []byte) int64 {
	const page, txid = 4096, 64
	if binary.LittleEndian.Uint64(file[txid:]) < binary.LittleEndian.Uint64(file[page+txid:]) {
		return 0
	}
	return page
}

// flip alters a byte of a file.
func flip(path string, at int64) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	raw[at] ^= 0xff
	return os.WriteFile(path, raw, 0o600)
}
