package faults

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// reboot has the effects of the host's reboot on a daemon: all processes, mounts and files in memory vanish, and
// files on disk remain. Then it starts the daemon.
func reboot(d *harness.Daemon) {
	d.T.Helper()
	var pids []int
	for _, c := range d.All() {
		if c.Pid > 0 && harness.Alive(c.Pid) {
			pids = append(pids, c.Pid)
		}
	}
	d.Kill9()
	// The OCI runtimes are killed after the shims, without which they continue.
	for pids = append(d.Processes(), pids...); len(pids) > 0; pids = d.Processes() {
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				d.T.Fatal(err)
			}
			d.Eventually("a process has ended", harness.Gone(pid))
		}
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	harness.Must(d.T, err)
	var mounts []string
	for line := range strings.Lines(string(data)) {
		if at := strings.Fields(line)[4]; strings.HasPrefix(at, d.State+"/") || strings.HasPrefix(at, d.Root+"/") {
			mounts = append(mounts, at)
		}
	}
	slices.Reverse(mounts)
	for _, at := range mounts {
		harness.Must(d.T, unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
	}
	removeCgroups(d)
	harness.Must(d.T, os.RemoveAll(d.State))
	d.Begin()
}

// removeCgroups removes the daemon's cgroups, which are empty.
func removeCgroups(d *harness.Daemon) {
	d.T.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/*", "/sys/fs/cgroup"} {
		tops, err := filepath.Glob(filepath.Join(pattern, d.Cgroup()))
		harness.Must(d.T, err)
		for _, top := range tops {
			var dirs []string
			harness.Must(d.T, filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
				if err == nil && e.IsDir() {
					dirs = append(dirs, path)
				}
				return err
			}))
			slices.Reverse(dirs)
			for _, dir := range dirs {
				d.Eventually("a cgroup is removed", func() error { return unix.Rmdir(dir) })
			}
		}
	}
}

// TestRestartLabels_AfterReboot has containers that ran, were stopped on purpose, or ended before a reboot.
func TestRestartLabels_AfterReboot(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	config := harness.BusyboxConfig()
	config.Labels = map[string]string{restartLabel + "status": "running", restartLabel + "policy": "always"}
	d.Cleat("image", "import", "--name", "busybox", harness.OCIArchive(t, [][]byte{harness.TarOf(t, harness.BusyboxFiles(t))}, config, nil))
	log := filepath.Join(t.TempDir(), "log")
	sleeps := "echo up; sleep 1000"
	restarting(d, "always", sleeps, "policy=always", "loguri=file://"+log)
	restarting(d, "unsaid", sleeps)
	restarting(d, "unless", sleeps, "policy=unless-stopped")
	restarting(d, "stopped", sleeps, "policy=unless-stopped")
	restarting(d, "failing", sleeps, "policy=on-failure:3")
	restarting(d, "never", sleeps, "policy=no")
	restarting(d, "halted", sleeps, "policy=always")
	d.Cleat("run", "-d", "--name", "plain", "busybox", "sleep", "1000")

	relabel(d, "stopped", "explicitly-stopped=true")
	harness.KillPid(t, d.Ps("stopped").Pid)
	d.Status("stopped", "stopped")
	relabel(d, "halted", "status=stopped")
	d.Eventually("the container is stopped", func() error {
		if s := d.All()["halted"].Status; s == "running" {
			return errors.New(s)
		}
		return nil
	})
	before := d.All()
	reboot(d)

	up := []string{"always", "unsaid", "unless"}
	for _, id := range up {
		if c := restarted(d, id, "1", "running"); c.Pid == before[id].Pid {
			t.Errorf("%s still has the pid %d", id, c.Pid)
		}
	}
	d.Eventually("the log is in the labelled file", func() error {
		data, err := os.ReadFile(log)
		if err == nil && string(data) != "up\n" {
			err = fmt.Errorf("%q", data)
		}
		return err
	})
	// A failure after the reboot counts as usual.
	ctx, conn := fixture.GRPC(d)
	tasks, containers := tasksapi.NewTasksClient(conn), containersapi.NewContainersClient(conn)
	_, err := tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: "failing"})
	harness.Must(t, err)
	harness.KillPid(t, fixture.StartTask(ctx, d, tasks, "failing"))
	restarted(d, "failing", "1", "running")

	d.Restart() // checks all of them once more
	for _, id := range up {
		restarted(d, id, "1", "running")
	}
	for _, id := range []string{"stopped", "never", "halted", "plain"} {
		if c := d.All()[id]; c.Status == "running" {
			t.Errorf("%s runs after a reboot", id)
		}
		resp, err := containers.Get(ctx, &containersapi.GetContainerRequest{ID: id})
		if err != nil || resp.Container.Labels[restartLabel+"count"] != "" || id == "plain" && resp.Container.Labels[restartLabel+"status"] != "" {
			t.Errorf("%s: %v, %v", id, resp, err)
		}
	}
	// With a new desired state it may run.
	relabel(d, "stopped", "explicitly-stopped=")
	reboot(d)
	restarted(d, "stopped", "1", "running")
	restarted(d, "unless", "2", "running")
	if c := d.All()["failing"]; c.Status == "running" {
		t.Errorf("a container with the policy on-failure is %+v", c)
	}
	quiet(d, append(up, "stopped", "failing", "never", "halted"))
}

// quiet removes the desired state of containers, so that they can be removed.
func quiet(d *harness.Daemon, ids []string) {
	d.T.Helper()
	for _, id := range ids {
		relabel(d, id, "status=stopped")
	}
	d.Eventually("the containers are stopped", func() error {
		for id, c := range d.All() {
			if slices.Contains(ids, id) && c.Status == "running" {
				return fmt.Errorf("%s is %s", id, c.Status)
			}
		}
		return nil
	})
}
