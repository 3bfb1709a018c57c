package integration

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
)

// reboot has the effects of the host's reboot on a daemon: all processes, mounts and files in memory vanish, and
// files on disk remain. Then it starts the daemon.
func (d *Daemon) reboot() {
	d.t.Helper()
	var pids []int
	for _, c := range d.all() {
		if c.Pid > 0 && alive(c.Pid) {
			pids = append(pids, c.Pid)
		}
	}
	d.Kill9()
	// The OCI runtimes are killed after the shims, without which they continue.
	for pids = append(d.processes(), pids...); len(pids) > 0; pids = d.processes() {
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				d.t.Fatal(err)
			}
			d.Eventually("a process has ended", gone(pid))
		}
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	must(d.t, err)
	var mounts []string
	for line := range strings.Lines(string(data)) {
		if at := strings.Fields(line)[4]; strings.HasPrefix(at, d.State+"/") || strings.HasPrefix(at, d.Root+"/") {
			mounts = append(mounts, at)
		}
	}
	slices.Reverse(mounts)
	for _, at := range mounts {
		must(d.t, unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
	}
	d.removeCgroups()
	must(d.t, os.RemoveAll(d.State))
	d.Begin()
}

// removeCgroups removes the daemon's cgroups, which are empty.
func (d *Daemon) removeCgroups() {
	d.t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/*", "/sys/fs/cgroup"} {
		tops, err := filepath.Glob(filepath.Join(pattern, d.cgroup()))
		must(d.t, err)
		for _, top := range tops {
			var dirs []string
			must(d.t, filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
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
	d := Start(t)
	config := busyboxConfig()
	config.Labels = map[string]string{restartLabel + "status": "running", restartLabel + "policy": "always"}
	d.Cleat("image", "import", "--name", "busybox", ociArchive(t, [][]byte{tarOf(t, busyboxFiles(t))}, config, nil))
	log := filepath.Join(t.TempDir(), "log")
	sleeps := "echo up; sleep 1000"
	d.restarting("always", sleeps, "policy=always", "loguri=file://"+log)
	d.restarting("unsaid", sleeps)
	d.restarting("unless", sleeps, "policy=unless-stopped")
	d.restarting("stopped", sleeps, "policy=unless-stopped")
	d.restarting("failing", sleeps, "policy=on-failure:3")
	d.restarting("never", sleeps, "policy=no")
	d.restarting("halted", sleeps, "policy=always")
	d.Cleat("run", "-d", "--name", "plain", "busybox", "sleep", "1000")

	d.relabel("stopped", "explicitly-stopped=true")
	killPid(t, d.ps("stopped").Pid)
	d.status("stopped", "stopped")
	d.relabel("halted", "status=stopped")
	d.Eventually("the container is stopped", func() error {
		if s := d.all()["halted"].Status; s == "running" {
			return errors.New(s)
		}
		return nil
	})
	before := d.all()
	d.reboot()

	up := []string{"always", "unsaid", "unless"}
	for _, id := range up {
		if c := d.restarted(id, "1", "running"); c.Pid == before[id].Pid {
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
	ctx, conn := d.grpc()
	tasks, containers := tasksapi.NewTasksClient(conn), containersapi.NewContainersClient(conn)
	_, err := tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: "failing"})
	must(t, err)
	killPid(t, d.startTask(ctx, tasks, "failing"))
	d.restarted("failing", "1", "running")

	d.Restart() // checks all of them once more
	for _, id := range up {
		d.restarted(id, "1", "running")
	}
	for _, id := range []string{"stopped", "never", "halted", "plain"} {
		if c := d.all()[id]; c.Status == "running" {
			t.Errorf("%s runs after a reboot", id)
		}
		resp, err := containers.Get(ctx, &containersapi.GetContainerRequest{ID: id})
		if err != nil || resp.Container.Labels[restartLabel+"count"] != "" || id == "plain" && resp.Container.Labels[restartLabel+"status"] != "" {
			t.Errorf("%s: %v, %v", id, resp, err)
		}
	}
	// With a new desired state it may run.
	d.relabel("stopped", "explicitly-stopped=")
	d.reboot()
	d.restarted("stopped", "1", "running")
	d.restarted("unless", "2", "running")
	if c := d.all()["failing"]; c.Status == "running" {
		t.Errorf("a container with the policy on-failure is %+v", c)
	}
	d.quiet(append(up, "stopped", "failing", "never", "halted"))
}

// quiet removes the desired state of containers, so that they can be removed.
func (d *Daemon) quiet(ids []string) {
	d.t.Helper()
	for _, id := range ids {
		d.relabel(id, "status=stopped")
	}
	d.Eventually("the containers are stopped", func() error {
		for id, c := range d.all() {
			if slices.Contains(ids, id) && c.Status == "running" {
				return fmt.Errorf("%s is %s", id, c.Status)
			}
		}
		return nil
	})
}
