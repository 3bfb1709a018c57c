package content_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	api "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/content/contenttest"
	daemonapi "github.com/cleatproject/cleat/daemon/api"
	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/api/wire"
	"github.com/cleatproject/cleat/daemon/service"
	"github.com/cleatproject/cleat/events"
	meta "github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount/activation"
	"github.com/cleatproject/cleat/reaper"
	"github.com/cleatproject/cleat/runtime"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// server is the API over a real socket, with the stores behind it and nothing that runs.
type server struct {
	t    testing.TB
	root string
	svc  *service.Service
	db   *meta.DB
	disk *content.Store
	conn *grpc.ClientConn
	stop func()
}

// serve starts one in a new directory, with the namespaces that are named.
func serve(t testing.TB, namespaces ...string) *server {
	t.Helper()
	s := &server{t: t, root: t.TempDir(), stop: func() {}}
	s.restart()
	t.Cleanup(func() { s.stop() })
	for _, ns := range namespaces {
		must(t, s.svc.Namespaces.Create(t.Context(), ns, nil))
	}
	return s
}

// restart ends the server, if it runs, and starts it on the same directory.
func (s *server) restart() {
	t := s.t
	t.Helper()
	s.stop()
	var err error
	s.db, err = meta.Open(filepath.Join(s.root, "meta.db"))
	must(t, err)
	s.disk, err = content.Open(filepath.Join(s.root, "content"))
	must(t, err)
	log, err := events.Open(filepath.Join(s.root, "events"), events.Options{})
	must(t, err)
	children := reaper.New()
	tasks, err := runtime.New(runtime.Config{
		State: filepath.Join(s.root, "state"), Root: s.root, Reaper: children, Log: slog.New(slog.DiscardHandler),
		Publish: func(events.Event) error { return nil },
	})
	must(t, err)
	mounts, err := activation.Open(filepath.Join(s.root, "state", "m"), s.root)
	must(t, err)
	s.svc = service.New(service.Config{
		Mounts: mounts, Runtime: tasks, DB: s.db, Content: s.disk, Events: log, Root: s.root,
		CgroupParent: "/cleat-test-of-the-api", Log: slog.New(slog.DiscardHandler),
	})
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	must(t, err)
	srv := daemonapi.NewGRPC(daemonapi.Parts{
		DB: s.db, Blobs: s.svc.Blobs, Namespaces: s.svc.Namespaces, GC: s.svc.GC, Log: slog.New(slog.DiscardHandler),
	}, nil)
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	s.conn, err = grpc.NewClient("unix://"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	s.stop = func() {
		must(t, s.conn.Close())
		srv.GracefulStop() // which waits for what the calls do at their end
		must(t, <-ended)
		s.svc.Close()
		must(t, errors.Join(tasks.Close(), children.Close(), log.Close(), s.db.Close()))
	}
}

// in is the context of a client in a namespace.
func (s *server) in(namespace string) context.Context {
	return metadata.AppendToOutgoingContext(s.t.Context(), access.GRPCNamespace, namespace)
}

// remote is the content of a namespace over the API, as a client has it.
type remote struct {
	api.ContentClient
	ctx context.Context // has the namespace
}

var _ contenttest.Store = remote{}

func (s *server) content(namespace string) remote {
	return remote{api.NewContentClient(s.conn), s.in(namespace)}
}

// call gives a request's context the namespace.
func (r remote) call(ctx context.Context) context.Context {
	md, _ := metadata.FromOutgoingContext(r.ctx)
	return metadata.NewOutgoingContext(ctx, md)
}

func (r remote) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	resp, err := r.ContentClient.Info(r.call(ctx), &api.InfoRequest{Digest: d.String()})
	if err != nil {
		return content.Info{}, errgrpc.ToNative(err)
	}
	return infoOf(resp.Info), nil
}

func infoOf(i *api.Info) content.Info {
	return content.Info{Digest: digest.Digest(i.Digest), Size: i.Size, CreatedAt: i.CreatedAt.AsTime()}
}

func (r remote) Walk(ctx context.Context, fn func(content.Info) error) error {
	list, err := r.list(ctx)
	if err != nil {
		return err
	}
	for _, i := range list {
		if err := fn(infoOf(i)); err != nil {
			return err
		}
	}
	return nil
}

func (r remote) list(ctx context.Context, filters ...string) ([]*api.Info, error) {
	stream, err := r.List(r.call(ctx), &api.ListContentRequest{Filters: filters})
	if err != nil {
		return nil, errgrpc.ToNative(err)
	}
	var out []*api.Info
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, errgrpc.ToNative(err)
		}
		out = append(out, resp.Info...)
	}
}

func (r remote) Delete(ctx context.Context, d digest.Digest) error {
	_, err := r.ContentClient.Delete(r.call(ctx), &api.DeleteContentRequest{Digest: d.String()})
	return errgrpc.ToNative(err)
}

func (r remote) ReaderAt(ctx context.Context, d digest.Digest) (contenttest.Reader, error) {
	info, err := r.Info(ctx, d)
	if err != nil {
		return nil, err
	}
	return remoteReader{r, d, info.Size}, nil
}

type remoteReader struct {
	r    remote
	d    digest.Digest
	size int64
}

func (r remoteReader) Size() int64  { return r.size }
func (r remoteReader) Close() error { return nil }

func (r remoteReader) ReadAt(p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n := 0
	err := r.r.read(&api.ReadContentRequest{Digest: r.d.String(), Offset: off, Size: int64(len(p))}, func(m *api.ReadContentResponse) {
		if m.Offset != off+int64(n) {
			n = -len(p) // which no reader accepts
		}
		n += copy(p[n:], m.Data)
	})
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// read calls fn with each message of a read.
func (r remote) read(req *api.ReadContentRequest, fn func(*api.ReadContentResponse)) error {
	stream, err := r.Read(r.ctx, req)
	if err != nil {
		return errgrpc.ToNative(err)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errgrpc.ToNative(err)
		}
		fn(m)
	}
}

func (r remote) Status(ctx context.Context, ref string) (content.Status, error) {
	resp, err := r.ContentClient.Status(r.call(ctx), &api.StatusRequest{Ref: ref})
	if err != nil {
		return content.Status{}, errgrpc.ToNative(err)
	}
	return statusOf(resp.Status), nil
}

func statusOf(st *api.Status) content.Status {
	return content.Status{
		Ref: st.Ref, Offset: st.Offset, Total: st.Total, Expected: digest.Digest(st.Expected),
		StartedAt: st.StartedAt.AsTime(), UpdatedAt: st.UpdatedAt.AsTime(),
	}
}

func (r remote) ListStatuses(ctx context.Context, prefix string) ([]content.Status, error) {
	resp, err := r.ContentClient.ListStatuses(r.call(ctx), &api.ListStatusesRequest{Filters: []string{"^" + prefix}})
	if err != nil {
		return nil, errgrpc.ToNative(err)
	}
	var out []content.Status
	for _, st := range resp.Statuses {
		out = append(out, statusOf(st))
	}
	return out, nil
}

func (r remote) Abort(ctx context.Context, ref string) error {
	_, err := r.ContentClient.Abort(r.call(ctx), &api.AbortRequest{Ref: ref})
	return errgrpc.ToNative(err)
}

// remoteWriter is a write stream.
type remoteWriter struct {
	stream grpc.BidiStreamingClient[api.WriteContentRequest, api.WriteContentResponse]
	cancel context.CancelFunc
	ref    string
	last   *api.WriteContentResponse
	offset int64
	closed bool
}

func (r remote) Writer(ctx context.Context, ref string, opts content.WriterOptions) (contenttest.Writer, error) {
	w, err := r.open(ctx, &api.WriteContentRequest{Action: api.WriteAction_STAT, Ref: ref, Total: opts.Total, Expected: opts.Expected.String()})
	if err != nil {
		return nil, err
	}
	return w, nil
}

// open opens a stream with its first message.
func (r remote) open(ctx context.Context, first *api.WriteContentRequest) (*remoteWriter, error) {
	ctx, cancel := context.WithCancel(r.call(ctx))
	stream, err := r.Write(ctx, grpc.MaxCallSendMsgSize(wire.MaxMessage))
	if err != nil {
		cancel()
		return nil, errgrpc.ToNative(err)
	}
	w := &remoteWriter{stream: stream, cancel: cancel, ref: first.Ref}
	if err := w.send(first); err != nil {
		cancel()
		return nil, err
	}
	return w, nil
}

// send sends a message and takes its answer.
func (w *remoteWriter) send(req *api.WriteContentRequest) error {
	if w.closed {
		return errors.New("the writer is closed")
	}
	if err := w.stream.Send(req); err != nil && !errors.Is(err, io.EOF) { // then Recv says why
		return errgrpc.ToNative(err)
	}
	resp, err := w.stream.Recv()
	if err != nil {
		return errgrpc.ToNative(err)
	}
	w.last, w.offset = resp, resp.Offset
	return nil
}

func (w *remoteWriter) Write(p []byte) (int, error) {
	err := w.send(&api.WriteContentRequest{Action: api.WriteAction_WRITE, Offset: w.offset, Data: p})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (w *remoteWriter) Truncate(int64) error { w.offset = 0; return nil } // with the next message

func (w *remoteWriter) Commit(_ context.Context, size int64, expected digest.Digest) error {
	err := w.send(&api.WriteContentRequest{Action: api.WriteAction_COMMIT, Offset: w.offset, Total: size, Expected: expected.String()})
	return errors.Join(err, w.Close())
}

func (w *remoteWriter) Digest() digest.Digest {
	if w.last.Digest == "" {
		if err := w.send(&api.WriteContentRequest{Action: api.WriteAction_STAT}); err != nil {
			return ""
		}
	}
	return digest.Digest(w.last.Digest)
}

func (w *remoteWriter) Status() content.Status {
	return content.Status{
		Ref: w.ref, Offset: w.last.Offset, Total: w.last.Total,
		StartedAt: w.last.StartedAt.AsTime(), UpdatedAt: w.last.UpdatedAt.AsTime(),
	}
}

// Close ends the stream and waits until the server has, so that the ref is free.
func (w *remoteWriter) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	defer w.cancel()
	if err := w.stream.CloseSend(); err != nil {
		return err
	}
	for {
		if _, err := w.stream.Recv(); err != nil {
			return nil // the cause has been returned before
		}
	}
}
