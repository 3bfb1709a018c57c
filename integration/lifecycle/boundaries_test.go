package lifecycle

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

func TestLongPathsAndNames_TwoDaemons(t *testing.T) {
	t.Parallel()
	namespace := strings.Repeat("n", 76)
	var daemons []*harness.Daemon
	for range 2 {
		top, err := os.MkdirTemp("", "cleat-it")
		harness.Must(t, err)
		t.Cleanup(func() { harness.Must(t, os.RemoveAll(top)) })
		base := top
		for len(base) < 200 {
			base = filepath.Join(base, strings.Repeat("d", min(60, 200-len(base))))
		}
		harness.Must(t, os.MkdirAll(base, 0o755))
		daemons = append(daemons, harness.StartAt(t, base))
	}
	for i, d := range daemons {
		d.Cleat("namespace", "create", namespace)
		in := func(args ...string) string { return d.Cleat(append([]string{"--namespace", namespace}, args...)...) }
		in("image", "import", "--name", "busybox", harness.BusyboxArchive(t))
		id := strings.Repeat("i", 76)
		in("run", "-d", "--name", id, "busybox", "sh", "-c",
			fmt.Sprintf(`trap "exit %d" TERM; echo up; while :; do sleep 0.1; done`, 60+i))
		if out := in("run", "--rm", "busybox", "echo", "attached"); out != "attached" {
			t.Errorf("run: %q", out)
		}
		master, cmd := openTerminal(d, "--namespace", namespace, "run", "--rm", "-it", "busybox", "sh", "-c", "tty; exit 3")
		expect(harness.NewScreen(master), t, "/dev/pts/0")
		if code := harness.ExitCode(t, cmd.Wait()); code != 3 {
			t.Errorf("code %d with a terminal", code)
		}
		d.Restart()
		d.Eventually("the container is adopted", func() error {
			if ids := in("ps", "--quiet", "--filter", "status==running"); ids != id {
				return fmt.Errorf("running: %q", ids)
			}
			return nil
		})
		if out := in("exec", id, "echo", "inside"); out != "inside" {
			t.Errorf("exec: %q", out)
		}
		d.Eventually("the program handles signals, according to its log", func() error {
			if out := in("logs", id); out != "up" {
				return fmt.Errorf("%q", out)
			}
			return nil
		})
	}
	for i, d := range daemons {
		id := strings.Repeat("i", 76)
		d.Cleat("--namespace", namespace, "stop", id)
		if code := d.Cleat("--namespace", namespace, "wait", id); code != strconv.Itoa(60+i) {
			t.Errorf("daemon %d: exit code %s", i, code)
		}
	}
}

// sleeps returns an error while a process is still the OCI runtime before its exec, with descriptors that the exec
// closes.
func sleeps(pid uint32) error {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err == nil && !strings.HasPrefix(string(line), "sleep\x00") {
		err = fmt.Errorf("process %d runs %q", pid, line)
	}
	return err
}

func TestContainer_HasThreeDescriptorsOnly(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	check := func(what string, pid int) {
		t.Helper()
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		list, err := os.ReadDir(dir)
		harness.Must(t, err)
		var names []string
		for _, e := range list {
			names = append(names, e.Name())
		}
		if slices.Sort(names); !slices.Equal(names, []string{"0", "1", "2"}) {
			for _, n := range names {
				link, _ := os.Readlink(filepath.Join(dir, n)) // for the message only
				names = append(names, link)
			}
			t.Errorf("%s has descriptors %q", what, names)
		}
		if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || cwd != "/" {
			t.Errorf("working directory of %s: %q, %v", what, cwd, err)
		}
	}
	// ps shows the container of an attached CLI; rm ends it.
	attached := func(args ...string) {
		cmd := d.Command(args...)
		_, err := cmd.StdinPipe() // open until Wait
		harness.Must(t, err)
		harness.Must(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Wait() }) // it was killed
	}
	d.Cleat("run", "-d", "--name", "detached", "busybox", "sleep", "1000")
	attached("run", "--name", "attached", "busybox", "sleep", "1000")
	attached("run", "-i", "--name", "interactive", "busybox", "sleep", "1000")
	attached("run", "--log", "file://"+filepath.Join(t.TempDir(), "log"), "--name", "file", "busybox", "sleep", "1000")
	_, terminal := openTerminal(d, "run", "-it", "--name", "terminal", "busybox", "sleep", "1000")
	t.Cleanup(func() { _ = terminal.Wait() })
	for _, id := range []string{"detached", "attached", "interactive", "file", "terminal"} {
		d.Eventually(id+" runs", func() error {
			c, ok := d.All()[id]
			if !ok || c.Status != "running" {
				return errors.New(c.Status)
			}
			return sleeps(uint32(c.Pid))
		})
		check(id, d.Ps(id).Pid)
	}
	for _, flags := range [][]string{{"-d"}, {"-i"}, {}} {
		attached(append(append([]string{"exec"}, flags...), "detached", "sleep", "2000")...)
	}
	_, terminal = openTerminal(d, "exec", "-it", "detached", "sleep", "2000")
	t.Cleanup(func() { _ = terminal.Wait() })
	c := fixture.Client(d)
	var pids []uint32
	d.Eventually("four execs run", func() error {
		var err error
		pids, err = c.Pids(t.Context(), "detached")
		if err == nil && len(pids) != 5 {
			err = fmt.Errorf("processes %v", pids)
		}
		for _, pid := range pids {
			err = errors.Join(err, sleeps(pid))
		}
		return err
	})
	for _, pid := range pids {
		check(fmt.Sprintf("process %d of detached", pid), int(pid))
	}
	for id := range d.All() {
		d.Cleat("rm", "--force", id)
	}
}

func TestOtherUsers_CannotReachStateAndRoot(t *testing.T) {
	t.Parallel()
	base, err := os.MkdirTemp("", "cleat-it")
	harness.Must(t, err)
	harness.Must(t, os.Chmod(base, 0o755)) // the modes of /run and /var/lib
	d := harness.StartAt(t, base)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	d.Cleat("run", "-d", "-it", "--name", "tty", "busybox", "sh") // FIFOs, and a terminal
	d.Cleat("exec", "c", "true")
	d.Restart()
	d.Status("c", "running")

	for _, dir := range []string{d.State, d.Root} {
		harness.Must(t, audit(t, dir))
	}
	// The same by attempts as an unprivileged user.
	cmd := exec.Command("/bin/busybox", "find", d.State, d.Root)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var out bytes.Buffer
	cmd.Stdout = &out
	_ = cmd.Run() // fails: every attempt is refused
	for line := range strings.Lines(out.String()) {
		if path := strings.TrimSpace(line); path != d.State && path != d.Root {
			t.Errorf("other users see %s", path)
		}
	}
	for _, sock := range []string{d.Address, d.Address + ".ttrpc", d.Shims()["c"].Socket} {
		cmd := exec.Command(harness.Binary("cleat"), "--address", strings.TrimPrefix(sock, "unix://"), "version")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("other users can connect to %s: %s", sock, out)
		}
	}
}

// audit walks everything below dir that other users can reach by the modes of the directories above. It returns an
// error for each file that they can read, write, list or connect to. They may traverse directories down to
// namespaces, but not bundles.
func audit(t *testing.T, dir string) error {
	t.Helper()
	var errs error
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return harness.IgnoreGone(err)
		}
		info, err := e.Info()
		if err != nil {
			return harness.IgnoreGone(err)
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			return nil
		}
		mode := info.Mode().Perm()
		if bad := mode & 0o006; bad != 0 {
			errs = errors.Join(errs, fmt.Errorf("other users have rights %#o to %s, %s", bad, path, info.Mode()))
		}
		if !e.IsDir() {
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if mode&0o001 == 0 {
			return fs.SkipDir // not reachable
		}
		if strings.Count(rel, "/") >= 2 {
			errs = errors.Join(errs, fmt.Errorf("other users can traverse %s, %s", path, info.Mode()))
		}
		return nil
	})
	return errors.Join(errs, err)
}
