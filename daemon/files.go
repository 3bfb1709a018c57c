package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/durable"
	"github.com/cleatproject/cleat/internal/filelock"
	"github.com/cleatproject/cleat/proto/reason"
)

// MakeUUID writes a random UUID (version 4) to path and returns it.
func MakeUUID(path string) (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("create daemon uuid: %w", err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	uuid := fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	if err := durable.WriteFile(path, []byte(uuid+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("create daemon uuid: %w", err)
	}
	return uuid, nil
}

// lockWait bounds the wait for a held lock: a daemon that was killed while it started another program
// leaves the lock to that program until its exec, which closes it.
const lockWait = time.Second

// LockDir makes this process the only daemon of a state directory, until the returned function is
// called or the process ends. If there is another daemon, it returns errdefs.ErrUnavailable, after
// lockWait.
func LockDir(ctx context.Context, dir string) (func() error, error) {
	path := filepath.Join(dir, "cleatd.lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state directory: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	if err := filelock.Wait(ctx, f, unix.LOCK_EX); err != nil {
		err = errors.Join(err, f.Close())
		return nil, fmt.Errorf("another cleatd uses %s: %w: %w", dir, err, reason.DirectoryInUse)
	}
	return f.Close, nil
}
