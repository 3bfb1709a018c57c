package containers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/userdb"
	"github.com/cleatproject/cleat/metadata"
)

// maxLogRead bounds what one call returns of a log.
const maxLogRead = 1 << 20

// LogRange is a part of a log.
type LogRange struct {
	// Offset in bytes, from the end if it is negative; Length in bytes, 0 for as much as one call returns.
	Offset, Length int64
	// OwnOnly reads no file but the one that the daemon keeps.
	OwnOnly bool
}

// ReadLog returns a part of the log of a container, where it begins and the length of the log. Called by
// daemon/api/native/native.go. A container without a log is errdefs.ErrFailedPrecondition.
func (s *Service) ReadLog(ctx context.Context, namespace, id string, r LogRange) (data []byte, offset, size int64, err error) {
	c, err := s.Get(ctx, namespace, id)
	if err != nil {
		return nil, 0, 0, err
	}
	path, err := s.logOf(namespace, c, r.OwnOnly)
	if err != nil {
		return nil, 0, 0, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read log of %s: %w", id, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read log of %s: %w", id, err)
	}
	if !info.Mode().IsRegular() {
		return nil, 0, 0, fmt.Errorf("read log of %s: not a regular file: %w", id, errdefs.ErrFailedPrecondition)
	}
	size, offset = info.Size(), r.Offset
	if offset < 0 {
		offset = max(size+offset, 0)
	}
	length := min(max(size-offset, 0), maxLogRead)
	if r.Length > 0 {
		length = min(length, r.Length)
	}
	data = make([]byte, length)
	n, err := f.ReadAt(data, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, 0, fmt.Errorf("read log of %s: %w", id, err)
	}
	return data[:n], offset, size, nil
}

// logOf returns the file that a container's output goes to: the daemon's own, or one that its creator named.
func (s *Service) logOf(namespace string, c metadata.Container, ownOnly bool) (string, error) {
	r, err := record(c)
	if err != nil {
		return "", err
	}
	if r != nil && r.LogPath != "" {
		return filepath.Join(s.logDir(namespace, c.ID), logName), nil
	}
	if r != nil && !ownOnly && strings.HasPrefix(r.Stdout, "file://") {
		if u, err := url.Parse(r.Stdout); err == nil {
			return u.Path, nil
		}
	}
	return "", fmt.Errorf("read log of %s: the container has none: %w", c.ID, errdefs.ErrFailedPrecondition)
}

// LookupUser returns the ids of USER[:GROUP] in the passwd and group files of a running container; see userdb.Lookup.
func (s *Service) LookupUser(ctx context.Context, namespace, id, user string) (userdb.Identity, error) {
	t, err := s.tasks.Get(namespace, id)
	if err != nil {
		return userdb.Identity{}, err
	}
	pid := t.Info().Pid
	if pid == 0 {
		return userdb.Identity{}, fmt.Errorf("container %s: not running: %w", id, errdefs.ErrFailedPrecondition)
	}
	who, err := resolveUser(ctx, nil, fmt.Sprintf("/proc/%d/root", pid), user)
	if err != nil {
		return userdb.Identity{}, fmt.Errorf("container %s: %w", id, err)
	}
	return who, nil
}
