package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// TempPrefix is the prefix of the names of files that are being written. After a crash such files
// are rubbish.
const TempPrefix = ".tmp-"

// PendingFile is a file being written that gets its name at Commit. It is not safe for
// concurrent use.
type PendingFile struct {
	disk Disk
	f    File
	path string
}

// CreateAtomic starts a file that will appear at path with exactly the permissions perm.
// The caller ends it with Commit or Abort. Until then its bytes are in a file next to path
// whose name starts with TempPrefix.
func (d Disk) CreateAtomic(path string, perm fs.FileMode) (*PendingFile, error) {
	tmp := filepath.Join(filepath.Dir(path), TempPrefix+rand.Text())
	f, err := d.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create file: %w", err)
	}
	p := &PendingFile{disk: d, f: f, path: path}
	if err := f.Chmod(perm); err != nil {
		return nil, errors.Join(fmt.Errorf("set mode of %s: %w", path, err), p.Abort())
	}
	return p, nil
}

// Write appends b.
func (p *PendingFile) Write(b []byte) (int, error) { return p.f.Write(b) }

// Commit syncs the data, gives the file its name and syncs the directory. On error
// nothing is left under the temporary name.
func (p *PendingFile) Commit() error {
	if err := p.finish(File.Sync); err != nil {
		return err
	}
	return p.disk.SyncDir(filepath.Dir(p.path))
}

// finish gives the file its name after a successful sync.
func (p *PendingFile) finish(sync func(File) error) error {
	if p.f == nil {
		return fmt.Errorf("commit %s: %w", p.path, os.ErrClosed)
	}
	tmp := p.f.Name()
	err := sync(p.f)
	if cerr := p.f.Close(); err == nil {
		err = cerr
	}
	p.f = nil
	if err == nil {
		err = p.disk.Rename(tmp, p.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("commit %s: %w", p.path, err), p.disk.Remove(tmp))
	}
	return nil
}

// Abort removes the file. After Commit or Abort it does nothing, so it can be deferred.
func (p *PendingFile) Abort() error {
	if p.f == nil {
		return nil
	}
	tmp := p.f.Name()
	err := errors.Join(p.f.Close(), p.disk.Remove(tmp))
	p.f = nil
	if err != nil {
		return fmt.Errorf("abort %s: %w", p.path, err)
	}
	return nil
}
