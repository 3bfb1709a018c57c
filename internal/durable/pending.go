package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// PendingFile is a file being written that gets its name at Commit. It is not safe for
// concurrent use.
type PendingFile struct {
	f    *os.File
	path string
}

// CreateAtomic starts a file that will appear at path with exactly the permissions perm.
// The caller ends it with Commit or Abort. Until then its bytes are in a file beside path
// whose name starts with ".tmp-"; after a crash such files are rubbish.
func CreateAtomic(path string, perm fs.FileMode) (*PendingFile, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return nil, fmt.Errorf("create file: %w", err)
	}
	p := &PendingFile{f: f, path: path}
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
	if p.f == nil {
		return fmt.Errorf("commit %s: %w", p.path, os.ErrClosed)
	}
	tmp := p.f.Name()
	err := p.f.Sync()
	if cerr := p.f.Close(); err == nil {
		err = cerr
	}
	p.f = nil
	if err == nil {
		err = os.Rename(tmp, p.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("commit %s: %w", p.path, err), os.Remove(tmp))
	}
	return SyncDir(filepath.Dir(p.path))
}

// Abort drops the file. After Commit or Abort it does nothing, so it can be deferred.
func (p *PendingFile) Abort() error {
	if p.f == nil {
		return nil
	}
	tmp := p.f.Name()
	err := errors.Join(p.f.Close(), os.Remove(tmp))
	p.f = nil
	if err != nil {
		return fmt.Errorf("abort %s: %w", p.path, err)
	}
	return nil
}
