package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"

	api "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/daemon/service"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/rpc"
)

// contentService is containerd.services.content.v1.
type contentService struct{ svc *service.Service }

func (s contentService) blobs(ctx context.Context) (*service.Blobs, string, error) {
	ns, err := namespaceOf(ctx)
	if err != nil {
		return nil, "", err
	}
	return s.svc.Blobs(ns), ns, nil
}

// parseDigest checks a digest from a client.
func parseDigest(text string) (digest.Digest, error) {
	d, err := digest.Parse(text)
	if err != nil {
		return "", fmt.Errorf("digest %q: %w: %w", text, err, errdefs.ErrInvalidArgument)
	}
	return d, nil
}

func (s contentService) Info(ctx context.Context, req *api.InfoRequest) (*api.InfoResponse, error) {
	blobs, _, err := s.blobs(ctx)
	if err != nil {
		return nil, err
	}
	d, err := parseDigest(req.GetDigest())
	if err != nil {
		return nil, err
	}
	blob, err := blobs.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	return &api.InfoResponse{Info: apiBlob(blob)}, nil
}

func (s contentService) Update(ctx context.Context, req *api.UpdateRequest) (*api.UpdateResponse, error) {
	_, ns, err := s.blobs(ctx)
	if err != nil {
		return nil, err
	}
	d, err := parseDigest(req.GetInfo().GetDigest())
	if err != nil {
		return nil, err
	}
	v := metadata.Blob{Digest: d, Labels: req.GetInfo().GetLabels()}
	var blob metadata.Blob
	err = s.svc.DB.Update(ctx, func(tx *metadata.Tx) (err error) {
		blob, err = tx.Content(ns).Update(v, req.GetUpdateMask().GetPaths()...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &api.UpdateResponse{Info: apiBlob(blob)}, nil
}

func (s contentService) list(ctx context.Context, req *api.ListContentRequest, send func(*api.ListContentResponse) error) error {
	_, ns, err := s.blobs(ctx)
	if err != nil {
		return rpc.ToWire(err)
	}
	var list []metadata.Blob
	err = s.svc.DB.View(ctx, func(tx *metadata.Tx) (err error) {
		list, err = tx.Content(ns).List(req.GetFilters()...)
		return err
	})
	if err != nil {
		return rpc.ToWire(err)
	}
	for len(list) > 0 {
		n := min(listChunk, len(list))
		msg := &api.ListContentResponse{}
		for _, b := range list[:n] {
			msg.Info = append(msg.Info, apiBlob(b))
		}
		if err := send(msg); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

func (s contentService) Delete(ctx context.Context, req *api.DeleteContentRequest) (*emptypb.Empty, error) {
	blobs, _, err := s.blobs(ctx)
	if err != nil {
		return nil, err
	}
	d, err := parseDigest(req.GetDigest())
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, blobs.Delete(ctx, d)
}

// readChunk is how many bytes of a blob travel in one message.
const readChunk = 1 << 20

func (s contentService) read(ctx context.Context, req *api.ReadContentRequest, send func(*api.ReadContentResponse) error) (err error) {
	defer func() { err = rpc.ToWire(err) }()
	blobs, _, err := s.blobs(ctx)
	if err != nil {
		return err
	}
	d, err := parseDigest(req.GetDigest())
	if err != nil {
		return err
	}
	r, err := blobs.ReaderAt(ctx, d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	offset, end := req.GetOffset(), r.Size()
	if offset < 0 || offset > end || req.GetSize() < 0 {
		return fmt.Errorf("read %s from %d: it has %d bytes: %w", d, offset, end, errdefs.ErrOutOfRange)
	}
	if size := req.GetSize(); size > 0 && size < end-offset {
		end = offset + size
	}
	buf := make([]byte, min(readChunk, end-offset))
	for offset < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.ReadAt(buf[:min(int64(len(buf)), end-offset)], offset)
		if n > 0 {
			if err := send(&api.ReadContentResponse{Offset: offset, Data: buf[:n]}); err != nil {
				return err
			}
			offset += int64(n)
		}
		if err != nil && offset < end {
			return fmt.Errorf("read %s at %d: %w", d, offset, err)
		}
	}
	return nil
}

func (s contentService) Status(ctx context.Context, req *api.StatusRequest) (*api.StatusResponse, error) {
	blobs, _, err := s.blobs(ctx)
	if err != nil {
		return nil, err
	}
	st, err := blobs.Status(ctx, req.GetRef())
	if err != nil {
		return nil, err
	}
	return &api.StatusResponse{Status: apiStatus(st)}, nil
}

func (s contentService) ListStatuses(ctx context.Context, req *api.ListStatusesRequest) (*api.ListStatusesResponse, error) {
	blobs, _, err := s.blobs(ctx)
	if err != nil {
		return nil, err
	}
	list, err := blobs.ListStatuses(ctx)
	if err != nil {
		return nil, err
	}
	match, err := refFilter(req.GetFilters())
	if err != nil {
		return nil, err
	}
	resp := &api.ListStatusesResponse{}
	for _, st := range list {
		if match(st.Ref) {
			resp.Statuses = append(resp.Statuses, apiStatus(st))
		}
	}
	return resp, nil
}

// refFilter takes the regular expressions by which ingests are listed; none matches all.
func refFilter(exprs []string) (func(string) bool, error) {
	var all []*regexp.Regexp
	for _, e := range exprs {
		re, err := regexp.Compile(e)
		if err != nil {
			return nil, fmt.Errorf("filter %q: %w: %w", e, err, errdefs.ErrInvalidArgument)
		}
		all = append(all, re)
	}
	return func(ref string) bool {
		for _, re := range all {
			if re.MatchString(ref) {
				return true
			}
		}
		return len(all) == 0
	}, nil
}

func (s contentService) Abort(ctx context.Context, req *api.AbortRequest) (*emptypb.Empty, error) {
	blobs, _, err := s.blobs(ctx)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, blobs.Abort(ctx, req.GetRef())
}

// writeStream is the write call on either transport.
type writeStream interface {
	Send(*api.WriteContentResponse) error
	Recv() (*api.WriteContentRequest, error)
}

// write serves one write call: a session with one ingest, which stays for a later call if the
// stream ends before a commit.
func (s contentService) write(ctx context.Context, stream writeStream) (err error) {
	defer func() { err = rpc.ToWire(err) }()
	blobs, ns, err := s.blobs(ctx)
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
			s.svc.ContentCreated(ns, sess.committed)
			return nil
		}
	}
}

// writeSession is one ingest being written.
type writeSession struct {
	blobs     *service.Blobs
	w         *service.BlobWriter
	ref       string
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
	resp := &api.WriteContentResponse{
		Action: req.GetAction(), StartedAt: stamp(st.StartedAt), UpdatedAt: stamp(st.UpdatedAt),
		Offset: st.Offset, Total: st.Total, Digest: s.w.Digest().String(),
	}
	if req.GetAction() != api.WriteAction_COMMIT {
		return resp, nil
	}
	blob, err := s.w.CommitLabelled(ctx, req.GetTotal(), digest.Digest(req.GetExpected()), req.GetLabels())
	if err != nil {
		return nil, err
	}
	s.committed = blob
	resp.Digest = blob.Digest.String()
	return resp, nil
}

// open takes the ref from the first message; later ones may only repeat it.
func (s *writeSession) open(ctx context.Context, req *api.WriteContentRequest) (err error) {
	if s.w != nil {
		if req.GetRef() != "" && req.GetRef() != s.ref {
			return fmt.Errorf("write %s: the ref changed to %s: %w", s.ref, req.GetRef(), errdefs.ErrInvalidArgument)
		}
		return nil
	}
	opts := content.WriterOptions{Total: req.GetTotal()}
	if e := req.GetExpected(); e != "" {
		if opts.Expected, err = parseDigest(e); err != nil {
			return err
		}
	}
	s.ref = req.GetRef()
	s.w, err = s.blobs.Writer(ctx, s.ref, opts)
	return err
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
	_, err := s.w.Write(req.GetData())
	return err
}

type contentGRPC struct {
	contentService
	api.UnsafeContentServer
}

var _ api.ContentServer = contentGRPC{}

func (s contentGRPC) List(req *api.ListContentRequest, stream api.Content_ListServer) error {
	return s.list(stream.Context(), req, stream.Send)
}

func (s contentGRPC) Read(req *api.ReadContentRequest, stream api.Content_ReadServer) error {
	return s.read(stream.Context(), req, stream.Send)
}

func (s contentGRPC) Write(stream api.Content_WriteServer) error {
	return s.write(stream.Context(), stream)
}

type contentTTRPC struct{ contentService }

var _ api.TTRPCContentService = contentTTRPC{}

func (s contentTTRPC) List(ctx context.Context, req *api.ListContentRequest, stream api.TTRPCContent_ListServer) error {
	return s.list(ctx, req, stream.Send)
}

func (s contentTTRPC) Read(ctx context.Context, req *api.ReadContentRequest, stream api.TTRPCContent_ReadServer) error {
	return s.read(ctx, req, stream.Send)
}

func (s contentTTRPC) Write(ctx context.Context, stream api.TTRPCContent_WriteServer) error {
	return s.write(ctx, stream)
}

func apiBlob(b metadata.Blob) *api.Info {
	return &api.Info{
		Digest: b.Digest.String(), Size: b.Size, Labels: b.Labels,
		CreatedAt: stamp(b.CreatedAt), UpdatedAt: stamp(b.UpdatedAt),
	}
}

func apiStatus(st content.Status) *api.Status {
	return &api.Status{
		Ref: st.Ref, Offset: st.Offset, Total: st.Total, Expected: st.Expected.String(),
		StartedAt: stamp(st.StartedAt), UpdatedAt: stamp(st.UpdatedAt),
	}
}
