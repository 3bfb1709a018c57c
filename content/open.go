package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/internal/durable"
)

// Writer starts an ingest, or resumes it at its offset, which Status
// returns. Resuming reads the data written since the last checkpoint. The caller
// ends it with Commit or Close. Unavailable while another writer has the ref; failed
// precondition if the ingest was started for another digest or size. After an error no
// new ingest is left.
func (s *Store) Writer(ctx context.Context, ref string, opts WriterOptions) (*Writer, error) {
	if err := validateRef(ref); err != nil {
		return nil, err
	}
	if opts.Total < 0 {
		return nil, fmt.Errorf("ingest %q: size %d: %w", ref, opts.Total, errdefs.ErrInvalidArgument)
	}
	if opts.Expected != "" {
		_, err := s.Info(ctx, opts.Expected)
		if err == nil && !opts.Prove {
			err = fmt.Errorf("content %s: %w", opts.Expected, errdefs.ErrAlreadyExists)
		}
		if err != nil && !errdefs.IsNotFound(err) {
			return nil, err
		}
	}
	if err := s.lock(ref); err != nil {
		return nil, err
	}
	w := &Writer{store: s, ref: ref, dir: s.ingestDir(ref)}
	if err := w.open(ctx, opts); err != nil {
		s.unlock(ref)
		return nil, fmt.Errorf("open ingest %q: %w", ref, diskError(err))
	}
	s.opened(ref, w)
	return w, nil
}

func (w *Writer) open(ctx context.Context, opts WriterOptions) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	meta, err := w.store.recoveredMeta(w.dir)
	if err == nil {
		_, err = os.Stat(filepath.Join(w.dir, dataFile))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return w.create(opts)
	}
	if err != nil {
		return err
	}
	return w.resume(ctx, meta, opts)
}

// create creates the ingest's directory, data last: without that it is not an ingest. Nothing is
// synced, because there is no data to lose yet. The context is not checked: the steps
// are quick, and completed or undone.
func (w *Writer) create(opts WriterOptions) error {
	disk := w.store.disk
	if err := disk.RemoveTree(w.dir, dataFile); err != nil { // of a creation that a crash interrupted
		return err
	}
	w.begin(ingestMeta{Ref: w.ref, Expected: opts.Expected, Total: opts.Total, StartedAt: time.Now().UTC(), Boot: w.store.boot})
	raw, err := encodeMeta(w.meta)
	if err != nil {
		return err
	}
	if err := disk.Mkdir(w.dir, 0o700); err != nil {
		return err
	}
	err = writeNew(disk, filepath.Join(w.dir, metaFile), raw)
	if err == nil {
		w.f, err = disk.OpenFile(filepath.Join(w.dir, dataFile), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return errors.Join(err, disk.RemoveTree(w.dir, dataFile))
	}
	w.updatedAt = w.meta.StartedAt
	return nil
}

func writeNew(disk durable.Disk, path string, data []byte) error {
	f, err := disk.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// begin sets the fields that follow from the meta file.
func (w *Writer) begin(meta ingestMeta) {
	w.meta = meta
	w.algorithm = digest.Canonical
	if meta.Expected != "" {
		w.algorithm = meta.Expected.Algorithm()
	}
	w.hash = hasher{hash: w.algorithm.Hash(), bufs: &w.store.bufs}
}

// resume opens an existing ingest.
func (w *Writer) resume(ctx context.Context, meta ingestMeta, opts WriterOptions) error {
	if opts.Expected != "" && meta.Expected != "" && opts.Expected != meta.Expected {
		return fmt.Errorf("started for %s, not for %s: %w", meta.Expected, opts.Expected, errdefs.ErrFailedPrecondition)
	}
	if opts.Total != 0 && meta.Total != 0 && opts.Total != meta.Total {
		return fmt.Errorf("started for %d bytes, not for %d: %w", meta.Total, opts.Total, errdefs.ErrFailedPrecondition)
	}
	learned := opts.Expected != "" && meta.Expected == "" || opts.Total != 0 && meta.Total == 0
	if meta.Expected == "" {
		meta.Expected = opts.Expected
	}
	if meta.Total == 0 {
		meta.Total = opts.Total
	}
	w.begin(meta)
	path := filepath.Join(w.dir, dataFile)
	f, err := w.store.disk.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) {
		// A commit that failed after it had removed the write permission.
		if err = os.Chmod(path, 0o600); err == nil {
			f, err = w.store.disk.OpenFile(path, os.O_RDWR, 0)
		}
	}
	if err != nil {
		return err
	}
	w.f = f
	err = w.rehash(ctx)
	if err == nil && learned {
		err = w.store.writeMeta(w.dir, meta)
	}
	if err != nil {
		w.f = nil
		return errors.Join(err, f.Close())
	}
	return nil
}

// rehash advances the running digest to the end of the data, from the best checkpoint.
func (w *Writer) rehash(ctx context.Context) error {
	fi, err := w.f.Stat()
	if err != nil {
		return err
	}
	for _, name := range [...]string{syncedFile, stateFile} {
		c, ok, err := w.store.loadCheckpoint(w.dir, name, w.f, fi.Size())
		if err != nil {
			return err
		}
		if !ok || c.Offset < w.offset {
			continue
		}
		h, err := c.restore(w.algorithm)
		if err != nil {
			continue // of another algorithm
		}
		w.hash.hash, w.offset = h, c.Offset
		if name == syncedFile {
			w.synced = c.Offset
		}
	}
	w.flushed, w.saved = w.offset, w.offset
	w.updatedAt = writtenAt(fi, w.meta)
	n, err := w.store.copyTo(w.hash.hash, until(ctx, io.NewSectionReader(w.f, w.offset, fi.Size()-w.offset)))
	w.offset += n
	return err
}
