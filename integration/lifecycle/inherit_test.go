package lifecycle

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/integration/harness"
)

// burdened is the command line of a shell that sets attributes which shims and containers must not inherit, and then
// becomes the daemon.
const burdened = `
echo 300 > /proc/self/oom_score_adj || exit 1
ulimit -n 7777; ulimit -S -s 4096; ulimit -S -d 1000000; ulimit -c 0; umask 077
trap '' PIPE HUP INT TSTP TTIN TTOU CONT
export STRANGE=value LD_STRANGE=1 NOTIFY_SOCKET=/nowhere HOME=/nowhere
exec nice -n 5 "$@"
`

// ignoringEnv makes the test binary a launcher of the rest of its command line, which ignores signals that a shell
// cannot ignore.
const ignoringEnv = "CLEAT_TEST_IGNORING"

// becomeIgnoring returns only if it fails.
func becomeIgnoring(args []string) error {
	for _, s := range []uintptr{32, 34} {
		action := [4]uint64{1} // SIG_IGN
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, s, uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0); errno != 0 {
			return fmt.Errorf("ignore signal %d: %w", s, errno)
		}
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, ignoringEnv) })
	return unix.Exec(args[0], args, env)
}

// attributes are those that a process could inherit from the daemon.
type attributes struct {
	oomScore, nice, policy, files, stack, core, data, umask, ignored, blocked string
}

// attributesOf reads the attributes of a process; those of its threads must be equal.
func attributesOf(t *testing.T, pid int) (a attributes) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	harness.Must(t, err)
	for i, f := range files {
		data, err := os.ReadFile(f)
		harness.Must(t, err)
		_, rest, _ := strings.Cut(string(data), ") ") // the name in parentheses may contain blanks
		stat := strings.Fields(rest)
		if nice, policy := stat[16], stat[38]; i == 0 {
			a.nice, a.policy = nice, policy
		} else if nice != a.nice || policy != a.policy {
			t.Errorf("threads of process %d differ in nice value or scheduling policy", pid)
		}
	}
	limits := fmt.Sprintf("/proc/%d/limits", pid)
	a.files, a.stack = softLimit(t, limits, "Max open files"), softLimit(t, limits, "Max stack size")
	a.core, a.data = softLimit(t, limits, "Max core file size"), softLimit(t, limits, "Max data size")
	a.oomScore = readProc(t, pid, "oom_score_adj")
	for line := range strings.Lines(readProc(t, pid, "status")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch name {
		case "Umask":
			a.umask = value
		case "SigIgn":
			a.ignored = value
		case "SigBlk":
			a.blocked = value
		}
	}
	return a
}

func TestShimsAndContainers_InheritNothingFromDaemon(t *testing.T) {
	t.Parallel()
	own, err := os.Executable()
	harness.Must(t, err)
	d := StartBehind(t, "env", ignoringEnv+"=1", own, "/bin/sh", "-c", burdened, "sh")
	d.Busybox()
	const none = "0000000000000000"
	want := attributes{
		oomScore: "0", nice: "0", policy: "0", umask: "0022", ignored: none, blocked: none,
		files: "1024",
		stack: softLimit(t, "/proc/1/limits", "Max stack size"),
		core:  softLimit(t, "/proc/1/limits", "Max core file size"),
		data:  softLimit(t, "/proc/1/limits", "Max data size"),
	}
	check := func(who string, pid int, want attributes) {
		t.Helper()
		got := attributesOf(t, pid)
		if got != want {
			t.Errorf("%s: attributes are\n%+v, not\n%+v", who, got, want)
		}
		if env := readProc(t, pid, "environ"); strings.Contains(env, "STRANGE") || strings.Contains(env, "nowhere") {
			t.Errorf("%s: environment of the daemon: %q", who, env)
		}
	}
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	all := d.All()
	check("cleat run", all["c"].Pid, want)
	if _, errs, code := harness.Ctr(t, d.Address, "run", "-d", "--null-io", "docker.io/library/busybox:latest", "inherit", "sleep", "1000"); code != 0 {
		t.Fatal(errs)
	}
	defer d.Cleat("rm", "--force", "inherit")
	check("ctr run", d.All()["inherit"].Pid, want)

	session := d.Command("exec", "c", "sh", "-c", "echo $$; exec sleep 1000")
	out, err := session.StdoutPipe()
	harness.Must(t, err)
	harness.Must(t, session.Start())
	inside, err := bufio.NewReader(out).ReadString('\n')
	harness.Must(t, err)
	execed := outsidePid(t, all["c"].Pid, strings.TrimSpace(inside))
	wantExec := want
	if got := attributesOf(t, execed).files; got == "7777" {
		wantExec.files = got // see docs/compatibility.md, runc exec and open files
	}
	check("cleat exec", execed, wantExec)

	for id, s := range d.Shims() {
		shim := want
		shim.oomScore = "301"
		got := attributesOf(t, s.Pid)
		// A shim's soft limit is the host's hard one, and its threads block signals as the Go runtime requires.
		shim.files, shim.blocked = got.files, got.blocked
		check("shim of "+id, s.Pid, shim)
	}
	d.Cleat("rm", "--force", "c")
	if err := session.Wait(); err == nil {
		t.Error("the exec'd process succeeded although its container was removed")
	}
}

// outsidePid returns the host's pid of the process with the pid inside in the pid namespace of init.
func outsidePid(t *testing.T, init int, inside string) (pid int) {
	t.Helper()
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", init))
	harness.Must(t, err)
	procs, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	harness.Must(t, err)
	for _, p := range procs {
		if at, err := os.Readlink(p); err != nil || at != ns {
			continue // it has ended, or is in another namespace
		}
		n, err := strconv.Atoi(strings.Split(p, "/")[2])
		harness.Must(t, err)
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if f := strings.Fields(line); f[0] == "NSpid:" && f[len(f)-1] == inside {
				return n
			}
		}
	}
	t.Fatalf("no process %s in the pid namespace of %d", inside, init)
	return 0
}

// readProc reads a file of a process.
func readProc(t *testing.T, pid int, name string) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	harness.Must(t, err)
	return strings.TrimSpace(string(data))
}

// softLimit returns the named soft limit from a file of resource limits.
func softLimit(t *testing.T, file, name string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	harness.Must(t, err)
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.Fields(rest)[0]
		}
	}
	t.Fatalf("no %[2]s in %[1]s", file, name)
	return ""
}
