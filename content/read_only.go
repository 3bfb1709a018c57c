package content

import (
	"fmt"
	"io/fs"
	"os"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/durable"
)

// readOnly is the file system of a read-only store.
type readOnly struct{}

var _ durable.FS = readOnly{}

func refuse(path string) error {
	return fmt.Errorf("change %s: content store was opened read-only: %w", path, errdefs.ErrFailedPrecondition)
}

// OpenFile implements durable.FS.
func (readOnly) OpenFile(path string, flag int, perm fs.FileMode) (durable.File, error) {
	if flag&(os.O_WRONLY|os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND) != 0 {
		return nil, refuse(path)
	}
	return durable.OS{}.OpenFile(path, flag, perm)
}

// Mkdir implements durable.FS.
func (readOnly) Mkdir(path string, _ fs.FileMode) error { return refuse(path) }

// Remove implements durable.FS.
func (readOnly) Remove(path string) error { return refuse(path) }

// Rename implements durable.FS.
func (readOnly) Rename(_, newPath string) error { return refuse(newPath) }

// SyncDir implements durable.FS.
func (readOnly) SyncDir(dir string) error { return refuse(dir) }
