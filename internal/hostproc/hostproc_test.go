package hostproc

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// begin starts a program, which is killed with its children when the test ends.
func begin(t *testing.T, args ...string) int {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Kill(-cmd.Process.Pid, unix.SIGKILL); err != nil {
			t.Errorf("kill the group of %q: %v", args, err)
		}
		_ = cmd.Wait() // it was killed
	})
	return cmd.Process.Pid
}

func TestActivity_DistinguishesWorkFromHang(t *testing.T) {
	busy := begin(t, "sh", "-c", "while :; do :; done")
	first := ActivityOf(busy)
	for !ActivityOf(busy).Busy(first) { // at the latest when it has run
		runtime.Gosched()
	}
	if err := unix.Kill(busy, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for { // until the signal has stopped it
		if earlier := ActivityOf(busy); !ActivityOf(busy).Busy(earlier) {
			break
		}
	}
	waits := begin(t, "sh", "-c", "while :; do :; done & wait")
	earlier := ActivityOf(waits)
	for !ActivityOf(waits).Busy(earlier) { // by its child
		runtime.Gosched()
	}
	if gone := ActivityOf(-1); gone != (Activity{}) || gone.Busy(Activity{}) {
		t.Errorf("a process that does not exist: %+v", gone)
	}
}

func TestStart_UsesThreadWithHostAttributes(t *testing.T) {
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 7); err != nil {
		t.Fatal(err)
	}
	stat := func(a Attributes) []string {
		t.Helper()
		cmd := exec.Command("cat", "/proc/self/stat")
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := a.Start(cmd.Start); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		return strings.Fields(out.String())
	}
	if nice := stat(Attributes{})[18]; nice != "7" {
		t.Fatalf("nice value %s of a process that inherits it", nice)
	}
	if nice := stat(Attributes{thread: true})[18]; nice != "0" {
		t.Errorf("nice value %s of a process that does not inherit", nice)
	}
}

func TestSetLimits(t *testing.T) {
	pid := begin(t, "sleep", "1000")
	want := unix.Rlimit{Cur: 1 << 20, Max: 1 << 21}
	a := Attributes{limits: map[int]unix.Rlimit{unix.RLIMIT_CORE: want}}
	if err := a.SetLimits(pid); err != nil {
		t.Fatal(err)
	}
	var got unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_CORE, nil, &got); err != nil || got != want {
		t.Errorf("limit %+v, %v", got, err)
	}
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	if err := a.SetLimits(ended.Process.Pid); err != nil {
		t.Errorf("of a process that has ended: %v", err)
	}
}

func TestSetOOMScore_SetsCallersPlusOne(t *testing.T) {
	own, err := OOMScore()
	if err != nil {
		t.Fatal(err)
	}
	pid := begin(t, "sleep", "1000")
	if err := SetOOMScore(pid); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/oom_score_adj")
	if err != nil || strings.TrimSpace(string(data)) != strconv.Itoa(min(own+1, maxOOMScore)) {
		t.Errorf("%s, %v; own %d", data, err, own)
	}
	if err := SetOOMScore(int(^uint32(0) >> 1)); err != nil {
		t.Errorf("of a process that does not exist: %v", err)
	}
}

func TestNew_AdoptsStackLimitOfHost(t *testing.T) {
	var own, host unix.Rlimit
	for pid, limit := range map[int]*unix.Rlimit{0: &own, 1: &host} {
		if err := unix.Prlimit(pid, unix.RLIMIT_STACK, nil, limit); err != nil {
			t.Fatal(err)
		}
	}
	low := unix.Rlimit{Cur: 1 << 20, Max: own.Max}
	if err := unix.Prlimit(0, unix.RLIMIT_STACK, &low, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Prlimit(0, unix.RLIMIT_STACK, &own, nil); err != nil {
			t.Error(err)
		}
	})
	_, _ = New() // the warnings are about other attributes
	var got unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_STACK, nil, &got); err != nil || got.Cur != min(host.Cur, own.Max) {
		t.Errorf("soft limit %d, %v; the host's is %d", got.Cur, err, host.Cur)
	}
}
