package daemon

import (
	"bytes"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/daemon/service/containers"
	"github.com/cleatproject/cleat/internal/hostproc"
)

// umask is the umask of the daemon and of its child processes; modes that matter are set explicitly
// for each file.
const umask = 0o022

// detach resets process attributes that the daemon inherited from its parent, for the daemon and
// its child processes. It returns what shims must not inherit from the daemon, and the process
// attributes of containers whose spec sets none. Failures are logged.
func detach(log *slog.Logger) (hostproc.Attributes, containers.ProcessDefaults) {
	unix.Umask(umask)
	attributes, warnings := hostproc.New()
	for _, err := range warnings {
		log.Warn("shims and containers inherit an attribute of the daemon", "error", err)
	}
	var defaults containers.ProcessDefaults
	hard, err := hostproc.RaiseNoFile()
	if err != nil {
		log.Warn("containers get a lower limit of open files than the host has", "limit", hard, "error", err)
	}
	defaults.NoFile = hard
	if err := hostproc.CanResetOOMScore(); err != nil {
		log.Warn("containers inherit oom_score_adj of the daemon", "error", err)
	} else {
		defaults.ResetOOMScore = true
	}
	return attributes, defaults
}

// CatchSignals keeps signals that are not meant for the daemon from ending it: SIGPIPE of a client
// that disconnected, SIGHUP of a terminal. They are caught instead of ignored, as are those that
// the daemon was started with ignored: an ignored signal stays ignored in every process that the
// daemon starts (see execve(2)), a caught one does not.
func CatchSignals() {
	discard := make(chan os.Signal, 1) // signals are dropped, full or not
	signal.Notify(discard, syscall.SIGPIPE, syscall.SIGHUP)
	ignored := ignoredSignals()
	// Signals reserved by C libraries, which the Go runtime therefore does not catch, see signal(7).
	// This process has no C library.
	for _, s := range []syscall.Signal{32, 33, 34} {
		if ignored&(1<<(s-1)) != 0 {
			resetSignal(s)
		}
	}
	// The Go runtime catches every other signal by itself.
	for _, s := range []syscall.Signal{syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGCONT} {
		if ignored&(1<<(s-1)) != 0 {
			signal.Notify(discard, s)
		}
	}
}

// resetSignal sets a signal to its default action. os/signal does nothing for those reserved by C
// libraries.
func resetSignal(s syscall.Signal) {
	var action [4]uint64        // struct sigaction of the kernel: SIG_DFL, no flags, an empty mask
	const sizeOfSigset = 64 / 8 // 64 signals
	// It fails only for an invalid signal number.
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&action)), 0, sizeOfSigset, 0, 0)
}

// ignoredSignals returns the set of signals that the process ignores, bit N-1 for signal N; see
// SigIgn in proc(5). It is empty if the set cannot be read.
func ignoredSignals() uint64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(status) {
		if mask, ok := strings.CutPrefix(string(line), "SigIgn:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			if err != nil {
				return 0
			}
			return set
		}
	}
	return 0
}
