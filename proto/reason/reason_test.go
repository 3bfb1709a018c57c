package reason_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/reason"
)

func TestReason_HasClassAndText(t *testing.T) {
	seen := map[reason.Reason]bool{}
	for _, r := range reason.All() {
		if seen[r] {
			t.Errorf("%s is listed twice", r)
		}
		seen[r] = true
		err := fmt.Errorf("read thing: %w", r)
		if !errors.Is(err, r.Class()) || reason.Of(err) != r || reason.Known(string(r)) != r {
			t.Errorf("%s: reason %q, class %v of %v", r, reason.Of(err), r.Class(), err)
		}
		if want := "read thing: " + r.Class().Error(); err.Error() != want {
			t.Errorf("text %q, want %q", err, want)
		}
	}
}

func TestWith_KeepsTextAndClass(t *testing.T) {
	inner := fmt.Errorf("write: %w", errdefs.ErrFailedPrecondition)
	err := fmt.Errorf("outer: %w", reason.With(inner, reason.LoggerFailed))
	if err.Error() != "outer: write: failed precondition" || !errdefs.IsFailedPrecondition(err) || errdefs.IsUnavailable(err) {
		t.Errorf("changed by its reason: %v", err)
	}
	if reason.Of(err) != reason.LoggerFailed {
		t.Errorf("reason %q", reason.Of(err))
	}
	if got := reason.Of(reason.With(err, reason.ShimSilent)); got != reason.ShimSilent {
		t.Errorf("replaced reason is %q", got)
	}
	if got := reason.Of(reason.Default(err, reason.ShimSilent)); got != reason.LoggerFailed {
		t.Errorf("default replaced the reason by %q", got)
	}
	if reason.With(nil, reason.DiskFull) != nil || reason.Default(nil, reason.DiskFull) != nil {
		t.Error("nil became an error")
	}
}

func TestOf_RecognisesFullDisk(t *testing.T) {
	for _, errno := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		if got := reason.Of(fmt.Errorf("write x: %w", errno)); got != reason.DiskFull {
			t.Errorf("%v: reason %q", errno, got)
		}
	}
	if got := reason.Of(fmt.Errorf("write x: %w", syscall.EIO)); got != reason.None {
		t.Errorf("EIO: reason %q", got)
	}
}

// Messages as runc 1.1.5, runsc 20221219 and crun print them.
func TestFromRuntime(t *testing.T) {
	for message, want := range map[string]reason.Reason{
		`runc run failed: unable to start container process: exec: "nope": executable file not found in $PATH`:                        reason.CommandNotFound,
		`runc run failed: unable to start container process: exec: "/nope": stat /nope: no such file or directory`:                    reason.CommandNotFound,
		`runc run failed: unable to start container process: exec: "/etc": permission denied`:                                         reason.CommandNotExecutable,
		`runc run failed: unable to start container process: exec: "/etc": is a directory`:                                            reason.CommandNotExecutable,
		`exec failed: unable to start container process: exec: "/x": exec format error`:                                               reason.CommandNotExecutable,
		`exec failed: unable to start container process: chdir to cwd ("/nope") set in config.json failed: no such file or directory`: reason.DirectoryNotFound,
		`starting sandbox: error finding executable "nope" in PATH [/usr/local/sbin /bin]: no such file or directory`:                 reason.CommandNotFound,
		`starting root container: starting sandbox: creating process: failed to load /nope: no such file or directory`:                reason.CommandNotFound,
		`starting root container: starting sandbox: creating process: failed to load /etc: permission denied`:                         reason.CommandNotExecutable,
		`starting root container: starting sandbox: creating process: failed to load /etc/passwd: exec format error`:                  reason.CommandNotExecutable,
		"executable file `nope` not found in $PATH: No such file or directory":                                                        reason.CommandNotFound,
		`error during container init: error mounting "/nope" to rootfs at "/x": stat /nope: no such file or directory`:                reason.RuntimeFailed,
		`error during container init: open /proc/sys/net/x: permission denied`:                                                        reason.RuntimeFailed,
		`error mounting "/src" to rootfs at "/etc": create mountpoint for /etc mount: write /var/x: no space left on device`:          reason.DiskFull,

		"exec `/etc/passwd`: Permission denied": reason.CommandNotExecutable,
		"container does not exist":              reason.RuntimeFailed,
		"":                                      reason.RuntimeFailed,
	} {
		if got := reason.FromRuntime(message); got != want {
			t.Errorf("%s: %s, want %s", message, got, want)
		}
	}
}

func TestOperation_KeepsTextOfRuntimes(t *testing.T) {
	own := reason.With(errors.New("OCI runtime create failed: no space"), reason.DiskFull)
	if err := reason.Operation("create container c", own); err != own { //nolint:errorlint // the very value
		t.Errorf("got %v", err)
	}
	other := reason.With(errors.New("mount rootfs: no space"), reason.DiskFull)
	if err := reason.Operation("create container c", other); err.Error() != "create container c: mount rootfs: no space" || reason.Of(err) != reason.DiskFull {
		t.Errorf("got %v, reason %v", err, reason.Of(err))
	}
}
