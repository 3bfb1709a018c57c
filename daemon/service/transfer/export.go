package transfer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/layout"
)

// exportBuffer joins the small writes of an archive.
const exportBuffer = 256 << 10

// Export writes images as an archive. What was written before an error is of no use, and the
// client's to remove. It ends with ctx, also while a FIFO has no reader. Called by
// daemon/api/transfer/service.go.
func (s *Service) Export(ctx context.Context, namespace string, from Store, to Archive, watch Watcher) (err error) {
	hold := s.db.Hold(namespace) // what it reads is not removed concurrently
	defer hold.Release()
	found, err := s.lookup(ctx, namespace, &from)
	if err != nil {
		return err
	}
	var list []layout.Imported
	for _, img := range found {
		hold.Content(img.Target.Digest.String())
		if from.Whole {
			if err := image.CheckComplete(ctx, s.blobs.In(namespace), img.Target); err != nil {
				return fmt.Errorf("export image %s: %w", img.Name, err)
			}
		}
		list = append(list, layout.Imported{Name: img.Name, Target: img.Target})
	}
	if to.Path != "" {
		f, err := createArchive(ctx, to.Path, to.Owner)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		to.Out = f
	}
	watch.Event("Exporting", "")
	if err := s.writeArchive(ctx, namespace, to.Out, list, to.Export); err != nil {
		return err
	}
	for _, img := range list {
		watch.Event("exported", img.Name)
	}
	watch.Event("Completed export", "")
	return nil
}

// writeArchive writes an archive in large pieces.
func (s *Service) writeArchive(ctx context.Context, namespace string, to io.Writer, list []layout.Imported, opts layout.ExportOptions) error {
	w := bufio.NewWriterSize(to, exportBuffer)
	err := layout.Export(ctx, s.blobs.In(namespace), w, list, opts)
	if err == nil {
		err = w.Flush()
	}
	if cause := ctx.Err(); cause != nil && err != nil {
		return fmt.Errorf("export: %w", cause)
	}
	return err
}

// archiveWriter writes an archive to where a client wants it, and is interrupted by the end of a context.
type archiveWriter struct {
	*os.File
	stop func() // waits for an interruption that has begun
}

// Close implements io.Closer.
func (w *archiveWriter) Close() error {
	w.stop()
	return w.File.Close()
}

func createArchive(ctx context.Context, path string, owner *uint32) (*archiveWriter, error) {
	f, err := openToWrite(path, owner)
	if err != nil {
		return nil, err
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		_ = f.SetWriteDeadline(time.Unix(1, 0)) // a FIFO takes one, and a file does not block
	})
	return &archiveWriter{f, func() {
		if !stop() {
			<-stopped
		}
	}}, nil
}

// openToWrite opens the FIFO or regular file that a client wants written, without waiting: a FIFO has
// to have its reader. Anything else is invalid argument, and a path that leads nowhere not found.
func openToWrite(path string, owner *uint32) (*os.File, error) {
	path, _, release, err := findArchive(path, owner)
	if err != nil {
		return nil, err
	}
	defer release()
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("open archive %s: no process reads the FIFO: %w", path, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return nil, archiveError(err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case info.Mode().IsRegular():
		err = f.Truncate(0)
	case info.Mode().Type() != fs.ModeNamedPipe:
		err = notAnArchive(path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
