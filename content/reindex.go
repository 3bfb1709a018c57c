package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
)

// Progress is the progress of a Reindex.
type Progress struct {
	Blobs, TotalBlobs int
	Bytes, TotalBytes int64
	// Damaged counts the files moved aside so far.
	Damaged int
}

// Damage is a file among the blobs that does not match its name.
type Damage struct {
	// Digest is the one in the name; empty if it is not a digest.
	Digest digest.Digest
	Size   int64
	// Path is the new path of the file.
	Path string
	// Reason describes the mismatch.
	Reason string
}

// ReindexOptions change how Reindex works. The zero value is right.
type ReindexOptions struct {
	// Progress, if not nil, is called after each blob and, in long ones, in between.
	Progress func(Progress)
}

// Reindex reads every blob and calls fn with each that matches its name: the input
// for rebuilding a lost metadata database, sizes and times included.
// A file that does not match is moved to the directory damaged, durably, and returned; so it
// cannot be mistaken for the blob, and the blob can be written again. Work done
// before an error or the end of the context is kept, and Reindex can be called again.
// Blobs that are added or deleted concurrently may be seen or not.
func (s *Store) Reindex(ctx context.Context, opts ReindexOptions, fn func(Info) error) ([]Damage, error) {
	r := &reindex{store: s, report: opts.Progress}
	files, err := r.list()
	if err != nil {
		return nil, fmt.Errorf("reindex content: %w", err)
	}
	var damaged []Damage
	for _, f := range files {
		dmg, err := r.file(ctx, f, fn)
		if err != nil {
			return damaged, fmt.Errorf("reindex content: %w", err)
		}
		if dmg != nil {
			damaged = append(damaged, *dmg)
			r.progress.Damaged++
		}
		r.progress.Blobs++
		r.reportProgress()
	}
	return damaged, nil
}

// Verify reads a blob. Not found if there is none, data loss if it does not match its
// digest; it is not moved.
func (s *Store) Verify(ctx context.Context, d digest.Digest) error {
	path, err := s.path(d)
	if err != nil {
		return err
	}
	got, _, err := s.digestOf(ctx, path, d.Algorithm(), func(int) {})
	if err != nil {
		return blobError("verify", d, err)
	}
	if got != d {
		return fmt.Errorf("content %s is damaged: digest is %s: %w", d, got, errdefs.ErrDataLoss)
	}
	return nil
}

// reindex is one call of Reindex.
type reindex struct {
	store    *Store
	report   func(Progress)
	progress Progress
}

type blobFile struct {
	algorithm digest.Algorithm
	name      string
	info      fs.FileInfo
}

func (r *reindex) reportProgress() {
	if r.report != nil {
		r.report(r.progress)
	}
}

// list returns every file among the blobs, whatever its name.
func (r *reindex) list() ([]blobFile, error) {
	var out []blobFile
	for _, a := range algorithms() {
		entries, err := os.ReadDir(r.store.blobs(a))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			fi, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // deleted concurrently
			}
			if err != nil {
				return nil, err
			}
			out = append(out, blobFile{a, e.Name(), fi})
			r.progress.TotalBlobs++
			if fi.Mode().IsRegular() {
				r.progress.TotalBytes += fi.Size()
			}
		}
	}
	return out, nil
}

// file verifies one file and passes it to fn, or moves it aside.
func (r *reindex) file(ctx context.Context, f blobFile, fn func(Info) error) (*Damage, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path := filepath.Join(r.store.blobs(f.algorithm), f.name)
	d := digest.NewDigestFromEncoded(f.algorithm, f.name)
	dmg := &Damage{Size: f.info.Size()}
	switch {
	case d.Validate() != nil:
		dmg.Reason = "name is not a digest"
	case !f.info.Mode().IsRegular():
		dmg.Reason = "not a regular file"
	default:
		dmg.Digest = d
		got, size, err := r.store.digestOf(ctx, path, f.algorithm, func(n int) {
			r.progress.Bytes += int64(n)
			r.reportProgress()
		})
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, nil // deleted concurrently
		case errors.Is(err, errUnreadable):
			dmg.Reason = err.Error()
		case err != nil:
			return nil, err
		case got == d:
			return nil, fn(Info{Digest: d, Size: size, CreatedAt: f.info.ModTime().UTC()})
		default:
			dmg.Size, dmg.Reason = size, fmt.Sprintf("digest is %s", got)
		}
	}
	return r.moveAside(path, f, dmg)
}

// errUnreadable reports that a blob's bytes cannot be read from the disk.
var errUnreadable = errors.New("cannot be read")

// digestOf reads a file and returns its digest and size.
func (s *Store) digestOf(ctx context.Context, path string, a digest.Algorithm, read func(n int)) (digest.Digest, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = f.Close() }() // only read
	h := a.Hash()
	size, err := s.copyTo(h, until(ctx, readerFunc(func(p []byte) (int, error) {
		n, err := f.Read(p)
		read(n)
		if err != nil && err != io.EOF { //nolint:errorlint // Read returns it bare
			err = fmt.Errorf("%w: %w", errUnreadable, err)
		}
		return n, err
	})))
	return digest.NewDigest(a, h), size, err
}

// moveAside moves a file out of the blobs, to a free name.
func (r *reindex) moveAside(path string, f blobFile, dmg *Damage) (*Damage, error) {
	dir := filepath.Join(r.store.dir, "damaged")
	if err := r.store.disk.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	base := filepath.Join(dir, f.algorithm.String()+"-"+f.name)
	dmg.Path = base
	for n := 1; ; n++ {
		if _, err := os.Lstat(dmg.Path); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return nil, err
		}
		dmg.Path = fmt.Sprintf("%s.%d", base, n)
	}
	err := r.store.disk.RenameSynced(path, dmg.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // deleted concurrently
	}
	return dmg, err
}
