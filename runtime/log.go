package runtime

import (
	"context"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// logChunk is the number of bytes read from a log FIFO at once: the capacity of a pipe.
const logChunk = 64 << 10

// followLog copies the content of the log FIFO of a foreign shim's bundle into the daemon's log, one
// record per line, until the bundle's shim has exited or the Manager closes. Opened for reading and
// writing, as published: the shim's writes always have a reader while the daemon lives.
func (m *Manager) followLog(b *bundle) {
	f, err := os.OpenFile(b.file(logFile), os.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		m.cfg.Log.Warn("cannot follow the log of a shim", "id", b.id, "namespace", b.namespace, "error", err)
		return
	}
	t := m.lookup(b.namespace, b.id)
	m.spawn(func(ctx context.Context) {
		end := func() { f.Close() } //nolint:errcheck // ends the read below
		defer context.AfterFunc(ctx, end)()
		if t != nil {
			t.onGone(end)
		}
		buffer := make([]byte, logChunk)
		for {
			n, err := f.Read(buffer)
			if err != nil {
				return
			}
			// A line that ends later begins another record: its end may never arrive.
			for line := range strings.Lines(string(buffer[:n])) {
				if line = strings.TrimRight(line, "\r\n"); line != "" {
					m.cfg.Log.Info("shim: "+line, "id", b.id, "namespace", b.namespace)
				}
			}
		}
	})
}

// resumeLog is followLog for a bundle of an earlier daemon, if its shim logs to a FIFO.
func (m *Manager) resumeLog(b *bundle) {
	if info, err := os.Lstat(b.file(logFile)); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
		m.followLog(b)
	}
}
