package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// mounted mounts a file system until the test ends.
func mounted(t *testing.T, source, dir, fs, options string) {
	t.Helper()
	harness.Must(t, os.MkdirAll(dir, 0o711))
	harness.Must(t, unix.Mount(source, dir, fs, 0, options))
	t.Cleanup(func() { harness.Must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}

// startIn starts a daemon below a directory that the caller removes, after the mounts in it.
func startIn(t *testing.T, base string, args ...string) *harness.Daemon {
	t.Helper()
	d := &harness.Daemon{
		T: t, Root: filepath.Join(base, "root"), State: filepath.Join(base, "state"),
		Address: filepath.Join(base, "state", "cleat.sock"), Args: args, LogFile: filepath.Join(base, "cleatd.log"),
	}
	t.Cleanup(d.Cleanup)
	d.Begin()
	return d
}

// fill writes to a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	harness.Must(t, err)
	defer f.Close()
	for _, size := range []int{64 << 10, 1 << 10, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// fillInodes creates files below dir until no inode is left.
func fillInodes(t *testing.T, dir string) {
	t.Helper()
	harness.Must(t, os.Mkdir(dir, 0o700))
	for i := 0; ; i++ {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			return
		}
	}
}

// faultyDisk is one way in which the disk of a daemon rejects writes.
type faultyDisk struct {
	// root and state are the options of the tmpfs of each directory; "" means no tmpfs.
	root, state string
	// spoil makes the disk reject writes, repair undoes that.
	spoil, repair func(t *testing.T, d *harness.Daemon)
	// frozen is true if nothing can be removed before the repair.
	frozen bool
}

func faultyDisks() map[string]faultyDisk {
	removeFill := func(dir func(*harness.Daemon) string) func(*testing.T, *harness.Daemon) {
		return func(t *testing.T, d *harness.Daemon) { harness.Must(t, os.RemoveAll(filepath.Join(dir(d), "fill"))) }
	}
	root := func(d *harness.Daemon) string { return d.Root }
	state := func(d *harness.Daemon) string { return d.State }
	return map[string]faultyDisk{
		"full root": {
			root: "size=64m", repair: removeFill(root),
			spoil: func(t *testing.T, d *harness.Daemon) { fill(t, filepath.Join(d.Root, "fill")) },
		},
		"root without inodes": {
			root: "nr_inodes=2k", repair: removeFill(root),
			spoil: func(t *testing.T, d *harness.Daemon) { fillInodes(t, filepath.Join(d.Root, "fill")) },
		},
		"full state": {
			state: "size=16m", repair: removeFill(state),
			spoil: func(t *testing.T, d *harness.Daemon) { fill(t, filepath.Join(d.State, "fill")) },
		},
		"state without inodes": {
			state: "nr_inodes=500", repair: removeFill(state),
			spoil: func(t *testing.T, d *harness.Daemon) { fillInodes(t, filepath.Join(d.State, "fill")) },
		},
		"read-only root": {
			root: "size=64m", frozen: true,
			spoil: func(t *testing.T, d *harness.Daemon) {
				d.Kill9()
				harness.Must(t, unix.Mount(d.Root, d.Root, "", unix.MS_BIND, ""))
				harness.Must(t, unix.Mount("", d.Root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
			},
			repair: func(t *testing.T, d *harness.Daemon) { harness.Must(t, unix.Unmount(d.Root, unix.MNT_DETACH)) },
		},
	}
}

// TestDaemonOnFaultyDisk_ManagesTasksAndRecovers kills a daemon whose disk rejects writes. The next one starts,
// adopts, lists, stops and removes. It keeps events in memory and writes them after the repair.
func TestDaemonOnFaultyDisk_ManagesTasksAndRecovers(t *testing.T) {
	t.Parallel()
	for name, disk := range faultyDisks() {
		t.Run(name, func(t *testing.T) {
			base, err := os.MkdirTemp("", "cleat-it")
			harness.Must(t, err)
			t.Cleanup(func() { harness.Must(t, os.RemoveAll(base)) })
			if disk.root != "" {
				mounted(t, "none", filepath.Join(base, "root"), "tmpfs", disk.root)
			}
			if disk.state != "" {
				mounted(t, "none", filepath.Join(base, "state"), "tmpfs", disk.state)
			}
			testFaultyDisk(t, startIn(t, base), disk)
		})
	}
}

func testFaultyDisk(t *testing.T, d *harness.Daemon, disk faultyDisk) {
	d.Busybox()
	d.Cleat("image", "tag", "busybox", "other")
	for _, id := range []string{"one", "two", "three"} {
		d.Cleat("run", "-d", "--name", id, "busybox", "sh", "-c", harness.Trapping(7))
		d.Ready(id)
	}
	pid := d.Ps("one").Pid
	before := fixture.LastCursor(d)
	disk.spoil(t, d)
	for range 2 {
		d.Restart()
		if c := d.Status("one", "running"); c.Pid != pid {
			t.Fatalf("pid %d became %d", pid, c.Pid)
		}
	}
	d.Cleat("stop", "one")
	if c := d.Status("one", "stopped"); c.ExitCode != 7 {
		t.Errorf("exit code %d", c.ExitCode)
	}
	d.Kill9()
	logged := len(d.Log())
	d.Begin()
	if c := d.Status("one", "stopped"); c.ExitCode != 7 {
		t.Errorf("exit code %d after a restart", c.ExitCode)
	}
	if !disk.frozen {
		d.Cleat("rm", "one")
		d.Cleat("rm", "--force", "two")
		d.Cleat("image", "rm", "other")
	}
	if log := d.Log(); disk.root != "" && !strings.Contains(log, "kept in memory") {
		t.Errorf("no warning about events in memory:\n%s", log)
	}
	disk.repair(t, d)
	d.Eventually("events are written", func() error {
		log := d.Log()[logged:]
		if strings.LastIndex(log, "kept in memory") > strings.LastIndex(log, "events are written again") {
			return errors.New("events are not written")
		}
		return nil
	})
	if disk.frozen { // metadata is read-only until the next start
		d.Restart()
		d.Status("one", "stopped")
		d.Cleat("rm", "one")
	}
	d.Cleat("rm", "--force", "three")
	d.Cleat("run", "--rm", "busybox", "true")
	after := fixture.LastCursor(d)
	if after <= before {
		t.Errorf("cursor %d after %d", after, before)
	}
	d.Restart()
	if now := fixture.LastCursor(d); now <= after {
		t.Errorf("cursor %d after %d and a restart", now, after)
	}
}

// TestDaemonOnBrokenDisk_ManagesTasks has its root on a disk with I/O errors: a file system in a file that cannot
// grow, because the disk below it is full.
func TestDaemonOnBrokenDisk_ManagesTasks(t *testing.T) {
	t.Parallel()
	base, err := os.MkdirTemp("", "cleat-it")
	harness.Must(t, err)
	t.Cleanup(func() { harness.Must(t, os.RemoveAll(base)) })
	below := filepath.Join(base, "below")
	mounted(t, "none", below, "tmpfs", "size=48m")
	image := filepath.Join(below, "image")
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v: %s", name, args, err, out)
		}
	}
	harness.Must(t, os.WriteFile(image, nil, 0o600))
	harness.Must(t, os.Truncate(image, 256<<20))
	run("mkfs.ext4", "-q", "-F", image)
	root := filepath.Join(base, "root")
	harness.Must(t, os.Mkdir(root, 0o711))
	run("mount", "-o", "loop", image, root)
	t.Cleanup(func() { run("umount", "-l", root) })

	d := startIn(t, base)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "one", "busybox", "sh", "-c", harness.Trapping(7))
	d.Ready("one")
	pid := d.Ps("one").Pid
	fill(t, filepath.Join(below, "fill"))
	for i := 0; ; i++ { // until an error has reached the file system
		f, err := os.Create(filepath.Join(root, fmt.Sprint("junk", i)))
		if err != nil {
			break
		}
		_, err = f.Write(make([]byte, 1<<20))
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			break
		}
	}
	for range 2 {
		d.Restart()
	}
	ctx, conn := fixture.GRPC(d)
	tasks := tasksapi.NewTasksClient(conn)
	got, err := tasks.Get(ctx, &tasksapi.GetRequest{ContainerID: "one"})
	if err != nil || int(got.GetProcess().GetPid()) != pid || got.GetProcess().GetStatus() != tasktypes.Status_RUNNING {
		t.Fatalf("task %v, %v; pid before %d", got, err, pid)
	}
	_, err = tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: "one", Signal: uint32(unix.SIGTERM)})
	harness.Must(t, err)
	fixture.WaitTask(ctx, d, tasks, "one", 7)
	_, err = tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: "one"})
	harness.Must(t, err)
	d.Kill9()
	run("umount", "-l", root)
	harness.Must(t, os.Remove(filepath.Join(below, "fill")))
	run("mount", "-o", "loop", image, root)
	d.Begin()
	d.Cleat("run", "--rm", "busybox", "true")
}
