package harness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Gate creates a FIFO on which containers wait with `read x < /go/gate`; the returned function lets n of them pass.
func Gate(t *testing.T, n int) (dir string, open func()) {
	t.Helper()
	dir = t.TempDir()
	path := filepath.Join(dir, "gate")
	Must(t, unix.Mkfifo(path, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	Must(t, err)
	t.Cleanup(func() { Must(t, f.Close()) })
	return dir, func() {
		_, err := f.WriteString(strings.Repeat("\n", n))
		Must(t, err)
	}
}

// Away is slightly longer than containerd's shims retry to report an exit.
const Away = 16 * time.Second

// AtGate is the end of a program that ctr runs: it waits at the gate in a directory bound by GateMount.
const AtGate = "; read x < /go/gate"

// GateMount returns the flags by which ctr binds the directory of a gate.
func GateMount(dir string) []string {
	return []string{"--mount", "type=bind,src=" + dir + ",dst=/go,options=rbind:rw"}
}
