package containers

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/daemon/service/blobs"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/runcopts"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/runtime"
)

// Media types of what a checkpoint consists of, as published: CRIU's files in a tar archive, and the
// container's spec as an Any.
const (
	checkpointType       = "application/vnd.containerd.container.criu.checkpoint.criu.tar"
	checkpointConfigType = "application/vnd.containerd.container.checkpoint.config.v1+proto"
)

// Checkpoint is called by daemon/api/tasks.go. It writes a task's processes to the directory that its options
// name, or where they name none, with the container's spec to the namespace's content, and returns the
// descriptors. What is there already is a success too.
func (s *Service) Checkpoint(ctx context.Context, t *runtime.Task, options *types.Any) (_ []ocispec.Descriptor, err error) {
	path, err := checkpointPath(options)
	if err != nil {
		return nil, err
	}
	if path != "" {
		return nil, t.Checkpoint(ctx, path, options)
	}
	if err := findCRIU(); err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", t.ID(), err)
	}
	c, err := s.Get(ctx, t.Namespace(), t.ID())
	if err != nil {
		return nil, err
	}
	dir, err := t.Scratch("checkpoint")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := t.Checkpoint(ctx, dir, options); err != nil {
		return nil, err
	}
	files, err := s.writeBlob(ctx, t.Namespace(), checkpointType, func(w io.Writer) error {
		return archive.Diff(ctx, w, "", dir, archive.DiffOptions{})
	})
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", t.ID(), err)
	}
	if c.Spec == nil {
		return []ocispec.Descriptor{files}, nil
	}
	spec, err := rpc.Marshal(toWireAny(c.Spec))
	if err != nil {
		return nil, err
	}
	config, err := s.writeBlob(ctx, t.Namespace(), checkpointConfigType, func(w io.Writer) error {
		_, err := io.Copy(w, bytes.NewReader(spec))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", t.ID(), err)
	}
	return []ocispec.Descriptor{files, config}, nil
}

// findCRIU says early that the program is not there by which OCI runtimes do this.
func findCRIU() error {
	if _, err := exec.LookPath("criu"); err != nil {
		return fmt.Errorf("criu is not installed: %w: %w", err, reason.ProgramMissing)
	}
	return nil
}

// writeBlob writes a blob of a namespace. After an error there is no ingest.
func (s *Service) writeBlob(ctx context.Context, namespace, mediaType string, write func(io.Writer) error) (_ ocispec.Descriptor, err error) {
	hold := s.db.Hold(namespace)
	defer hold.Release()
	w, err := s.blobs.In(namespace).Writer(ctx, "checkpoint-"+rand.Text(), content.WriterOptions{})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Discard())
			return
		}
		err = w.Close()
	}()
	if err := write(w); err != nil {
		return ocispec.Descriptor{}, err
	}
	d := w.Digest()
	hold.Content(d.String())
	size := w.Status().Offset
	err = undo.Ignore(w.Commit(ctx, size, d), errdefs.ErrAlreadyExists)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: size}, err
}

// restoring is a checkpoint that a task is to be restored from. A nil restoring restores nothing.
type restoring struct {
	id     string // of the task
	digest digest.Digest
	blobs  *blobs.View
	size   int64
	hold   *metadata.Hold
}

// restoring checks that the namespace sees a checkpoint and that this host can restore it, and holds
// it. It returns nil without a checkpoint.
func (s *Service) restoring(ctx context.Context, namespace, id string, checkpoint *ocispec.Descriptor) (_ *restoring, err error) {
	if checkpoint == nil {
		return nil, nil // nothing to restore is ordinary
	}
	if checkpoint.MediaType != checkpointType {
		return nil, fmt.Errorf("create task %s: checkpoint of the type %q: want %s: %w", id, checkpoint.MediaType, checkpointType, errdefs.ErrInvalidArgument)
	}
	if err := checkpoint.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("create task %s: checkpoint %q: %w: %w", id, checkpoint.Digest, err, errdefs.ErrInvalidArgument)
	}
	r := &restoring{id: id, digest: checkpoint.Digest, blobs: s.blobs.In(namespace), hold: s.db.Hold(namespace)}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	r.hold.Content(checkpoint.Digest.String())
	blob, err := r.blobs.Blob(ctx, checkpoint.Digest)
	if err != nil {
		return nil, fmt.Errorf("create task %s: checkpoint: %w", id, err)
	}
	if r.size = blob.Size; checkpoint.Size != 0 && checkpoint.Size != blob.Size {
		return nil, fmt.Errorf("create task %s: checkpoint %s has %d bytes, not %d: %w", id, checkpoint.Digest, blob.Size, checkpoint.Size, errdefs.ErrInvalidArgument)
	}
	if err := findCRIU(); err != nil {
		return nil, fmt.Errorf("create task %s from a checkpoint: %w", id, err)
	}
	return r, nil
}

// close lets the checkpoint be collected.
func (r *restoring) close() {
	if r != nil {
		r.hold.Release()
	}
}

// unpack returns a directory with the checkpoint's files, which goes with the task; "" without one.
func (r *restoring) unpack(ctx context.Context, l *runtime.Launch) (dir string, err error) {
	if r == nil {
		return "", nil
	}
	if dir, err = l.Scratch("checkpoint"); err != nil {
		return "", err
	}
	blob, err := r.blobs.Open(ctx, r.digest)
	if err != nil {
		return "", fmt.Errorf("restore task %s: %w", r.id, err)
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	// The files of an archive that is not compressed are no longer than the archive.
	_, err = archive.Apply(ctx, dir, io.NewSectionReader(blob, 0, r.size), archive.Options{MaxBytes: r.size})
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return "", fmt.Errorf("restore task %s: %w", r.id, err)
	}
	return dir, nil
}

// checkpointPath reads the directory from containerd.runc.v1.CheckpointOptions.
func checkpointPath(options *types.Any) (string, error) {
	if options == nil {
		return "", nil
	}
	var o runcopts.CheckpointOptions
	if err := o.Unmarshal(options.Value); err != nil {
		return "", fmt.Errorf("checkpoint options: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return o.ImagePath, nil
}
