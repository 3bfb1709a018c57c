package integration

import (
	"strconv"
	"strings"
	"testing"
)

func TestRunGivesOutputAndExitCode(t *testing.T) {
	d := Start(t)
	d.Busybox()
	for _, code := range []int{0, 1, 42, 137, 143} {
		stdout, stderr, got := d.Try("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit "+strconv.Itoa(code))
		if got != code || stdout != "out\n" || stderr != "err\n" {
			t.Errorf("exit %d: code %d, stdout %q, stderr %q", code, got, stdout, stderr)
		}
	}
}

func TestRunDetachedThenEverything(t *testing.T) {
	d := Start(t)
	d.Busybox()
	if id := d.Cleat("run", "-d", "--name", "web", "busybox", "sh", "-c", "echo up; "+trapping(5)); id != "web" {
		t.Fatalf("run -d printed %q", id)
	}
	if ids := d.Cleat("ps", "--quiet"); ids != "web" {
		t.Errorf("ps shows %q", ids)
	}
	d.ready("web")
	d.Restart()
	if out, _, code := d.Try("exec", "web", "sh", "-c", "echo in; exit 7"); out != "in\n" || code != 7 {
		t.Errorf("exec: %q, code %d", out, code)
	}
	d.Cleat("pause", "web")
	if ps := d.Cleat("ps"); !strings.Contains(ps, "paused") {
		t.Errorf("paused container is shown as:\n%s", ps)
	}
	d.Cleat("resume", "web")
	d.logs("web", "up")
	d.Cleat("stop", "web")
	if code := d.Cleat("wait", "web"); code != "5" {
		t.Errorf("wait: %q", code)
	}
	d.Cleat("rm", "web")
	if ids := d.Cleat("ps", "--all", "--quiet"); ids != "" {
		t.Errorf("ps --all shows %q", ids)
	}
}
