package runtime

import (
	"bufio"
	"context"
	"os"

	"golang.org/x/sys/unix"
)

// followLog copies the lines that a foreign shim writes to its log FIFO into the daemon's log,
// until the bundle's shim is gone or the Manager closes. Opened for reading and writing, as
// published: the shim's writes never meet a missing reader while the daemon lives.
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
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			m.cfg.Log.Info("shim: "+lines.Text(), "id", b.id, "namespace", b.namespace)
		}
	})
}
