package content

import (
	"context"
	"errors"
	"fmt"
	"io"

	api "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/daemon/api/wire"
	"github.com/cleatproject/cleat/daemon/service/blobs"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/rpc"
)

// writeStream is the write call on either transport.
type writeStream interface {
	Send(*api.WriteContentResponse) error
	Recv() (*api.WriteContentRequest, error)
}

// write serves one write call: a session with one ingest, which stays for a later call if the
// stream ends before a commit. While a message is written no other is taken from the transport, which
// makes the client wait.
func (s contentService) write(ctx context.Context, stream writeStream) (err error) {
	defer func() { err = rpc.ToWire(err) }()
	blobs, _, err := s.blobs(ctx)
	if err != nil {
		return err
	}
	sess := &writeSession{blobs: blobs}
	defer func() { err = errors.Join(err, sess.close()) }()
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		resp, err := sess.handle(ctx, req)
		if err != nil {
			return err
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
		if req.GetAction() == api.WriteAction_COMMIT {
			return nil
		}
	}
}

// writeSession is one ingest being written.
type writeSession struct {
	blobs    *blobs.View
	w        *blobs.BlobWriter
	ref      string
	total    int64         // the latest that the client said, 0 for unknown
	expected digest.Digest // likewise, or empty
	// committed is what came of it.
	committed metadata.Blob
}

func (s *writeSession) close() error {
	if s.w == nil {
		return nil
	}
	return s.w.Close()
}

// handle does one message's action and returns the answer.
func (s *writeSession) handle(ctx context.Context, req *api.WriteContentRequest) (*api.WriteContentResponse, error) {
	if err := s.open(ctx, req); err != nil {
		return nil, err
	}
	switch req.GetAction() {
	case api.WriteAction_STAT:
	case api.WriteAction_WRITE, api.WriteAction_COMMIT:
		if err := s.append(req); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("write %s: unknown action %d: %w", s.ref, req.GetAction(), errdefs.ErrInvalidArgument)
	}
	st := s.w.Status()
	// Clients take the digest of a blob from the last answer before the commit, which may find that the blob
	// exists and then has no answer.
	resp := &api.WriteContentResponse{
		Action: req.GetAction(), StartedAt: wire.Timestamp(st.StartedAt), UpdatedAt: wire.Timestamp(st.UpdatedAt),
		Offset: st.Offset, Total: s.total, Digest: s.w.Digest().String(),
	}
	if req.GetAction() != api.WriteAction_COMMIT {
		return resp, nil
	}
	blob, err := s.w.CommitLabelled(ctx, s.total, s.expected, req.GetLabels())
	if err != nil {
		return nil, err
	}
	s.committed = blob
	resp.Digest = blob.Digest.String()
	return resp, nil
}

// open takes the ref from the first message; later ones may only repeat it. What they say of the
// whole takes the place of what was said before, as published.
func (s *writeSession) open(ctx context.Context, req *api.WriteContentRequest) (err error) {
	if req.GetOffset() < 0 {
		return fmt.Errorf("write %s at %d: %w", req.GetRef(), req.GetOffset(), errdefs.ErrInvalidArgument)
	}
	if req.GetTotal() > 0 { // zero or less means that it is not known
		s.total = req.GetTotal()
	}
	if e := req.GetExpected(); e != "" {
		if s.expected, err = wire.ParseDigest(e); err != nil {
			return err
		}
	}
	if s.w != nil {
		if req.GetRef() != "" && req.GetRef() != s.ref {
			return fmt.Errorf("write %s: the ref changed to %s: %w", s.ref, req.GetRef(), errdefs.ErrInvalidArgument)
		}
		return nil
	}
	s.ref = req.GetRef()
	if s.w, err = s.blobs.Writer(ctx, s.ref, content.WriterOptions{Total: s.total, Expected: s.expected}); err != nil {
		return err
	}
	// One that is taken up again may know already.
	st := s.w.Status()
	s.total, s.expected = st.Total, st.Expected
	return nil
}

// append writes a message's data at its offset: the end, or 0 to begin again.
func (s *writeSession) append(req *api.WriteContentRequest) error {
	at := s.w.Status().Offset
	if off := req.GetOffset(); off != at && len(req.GetData()) > 0 || off > 0 && off != at {
		if off != 0 {
			return fmt.Errorf("write %s at %d: the ingest stands at %d: %w", s.ref, off, at, errdefs.ErrOutOfRange)
		}
		if err := s.w.Truncate(0); err != nil {
			return err
		}
	}
	if len(req.GetData()) == 0 {
		return nil
	}
	if end := s.w.Status().Offset + int64(len(req.GetData())); s.total > 0 && end > s.total {
		return fmt.Errorf("write %s up to %d: its total is %d: %w", s.ref, end, s.total, errdefs.ErrOutOfRange)
	}
	_, err := s.w.Write(req.GetData())
	return err
}
