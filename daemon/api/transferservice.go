package api

import (
	"context"
	"fmt"
	"slices"

	api "github.com/containerd/containerd/api/services/transfer/v1"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/daemon/service"
	"github.com/cleatproject/cleat/daemon/streams"
)

// transfers is containerd.services.transfer.v1. What it does is daemon/service's, the same functions as for
// the calls of transfer.go; here are the streams that a call names.
type transfers struct {
	svc     *service.Service
	streams *streams.Manager
	api.UnsafeTransferServer
}

var (
	_ api.TransferServer       = transfers{}
	_ api.TTRPCTransferService = transfers{}
)

// Transfer moves images between registries, archives and the namespace's store.
func (s transfers) Transfer(ctx context.Context, req *api.TransferRequest) (_ *emptypb.Empty, err error) {
	ns, err := namespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := &transfer{svc: s.svc, namespace: ns, streams: s.streams, scopes: []string{namespaceScope(ns)}}
	if p := peerScope(ctx); p != "" {
		t.scopes = append(t.scopes, p)
	}
	defer func() { t.close(ctx, err) }()
	watch, err := t.progress(ctx, req.GetOptions().GetProgressStream())
	if err != nil {
		return nil, err
	}
	defer watch.close(ctx)
	source, err := t.decodeEnd("source", req.GetSource())
	if err != nil {
		return nil, err
	}
	destination, err := t.decodeEnd("destination", req.GetDestination())
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, t.run(ctx, source, destination, watch)
}

// transfer is one call.
type transfer struct {
	svc       *service.Service
	namespace string
	streams   *streams.Manager
	scopes    []string
	named     []string // the ids of the streams of both ends
	taken     []*streams.Stream
	stops     []func() bool
}

// run does what source and destination ask for.
func (t *transfer) run(ctx context.Context, source, destination proto.Message, watch service.Watcher) error {
	switch from := source.(type) {
	case *transfertypes.OCIRegistry:
		if to, ok := destination.(*transfertypes.ImageStore); ok {
			return t.pull(ctx, from, to, watch)
		}
	case *transfertypes.ImageImportStream:
		if to, ok := destination.(*transfertypes.ImageStore); ok {
			return t.importImages(ctx, from, to, watch)
		}
	case *transfertypes.ImageStore:
		switch to := destination.(type) {
		case *transfertypes.OCIRegistry:
			return t.push(ctx, from, to, watch)
		case *transfertypes.ImageExportStream:
			return t.export(ctx, from, to, watch)
		case *transfertypes.ImageStore:
			return t.tag(ctx, from, to, watch)
		}
	}
	return fmt.Errorf("transfer from %s to %s: %w", source.ProtoReflect().Descriptor().Name(), destination.ProtoReflect().Descriptor().Name(), errdefs.ErrNotImplemented)
}

func (t *transfer) pull(ctx context.Context, from *transfertypes.OCIRegistry, to *transfertypes.ImageStore, watch service.Watcher) error {
	remote, err := t.remote(ctx, from)
	if err != nil {
		return err
	}
	return t.svc.PullImage(ctx, t.namespace, remote, recordStore(to), watch)
}

func (t *transfer) push(ctx context.Context, from *transfertypes.ImageStore, to *transfertypes.OCIRegistry, watch service.Watcher) error {
	remote, err := t.remote(ctx, to)
	if err != nil {
		return err
	}
	return t.svc.PushImage(ctx, t.namespace, recordStore(from), remote, watch)
}

func (t *transfer) importImages(ctx context.Context, from *transfertypes.ImageImportStream, to *transfertypes.ImageStore, watch service.Watcher) error {
	if err := checkArchiveType(from.GetMediaType()); err != nil {
		return err
	}
	stream, err := t.take(ctx, from.GetStream())
	if err != nil {
		return err
	}
	return t.svc.ImportImages(ctx, t.namespace, streams.NewReader(stream), service.Archive{Compress: from.GetForceCompress()}, recordStore(to), watch)
}

func (t *transfer) export(ctx context.Context, from *transfertypes.ImageStore, to *transfertypes.ImageExportStream, watch service.Watcher) error {
	if err := checkArchiveType(to.GetMediaType()); err != nil {
		return err
	}
	stream, err := t.take(ctx, to.GetStream())
	if err != nil {
		return err
	}
	return t.svc.ExportImages(ctx, t.namespace, recordStore(from), exportOptions(to, from), streams.NewWriter(stream), watch)
}

func (t *transfer) tag(ctx context.Context, from, to *transfertypes.ImageStore, watch service.Watcher) error {
	return t.svc.TagImages(ctx, t.namespace, recordStore(from), recordStore(to), watch)
}

// take takes a stream for the length of the call: it ends with the call, or when the call is cancelled.
func (t *transfer) take(ctx context.Context, id string) (*streams.Stream, error) {
	s, err := t.streams.Take(id, t.scopes...)
	if err != nil {
		return nil, err
	}
	t.taken = append(t.taken, s)
	t.stops = append(t.stops, context.AfterFunc(ctx, func() { s.Close(context.Cause(ctx)) }))
	return s, nil
}

// close ends the streams. Those of bytes tell their clients whether all was well; so do those that a call
// which failed has not come to, as no other will.
func (t *transfer) close(ctx context.Context, err error) {
	for _, id := range t.named {
		if err != nil && id != "" && !slices.ContainsFunc(t.taken, func(s *streams.Stream) bool { return s.ID() == id }) {
			_, _ = t.take(ctx, id) // one that is not there needs no end
		}
	}
	for i, s := range t.taken {
		t.stops[i]()
		s.Close(err)
	}
}

// ends are the kinds of source and destination.
func ends() []proto.Message {
	return []proto.Message{
		&transfertypes.OCIRegistry{}, &transfertypes.ImageStore{},
		&transfertypes.ImageImportStream{}, &transfertypes.ImageExportStream{},
	}
}

// decodeEnd decodes a source or destination, and notes the streams that it names.
func (t *transfer) decodeEnd(what string, a *anypb.Any) (proto.Message, error) {
	if a == nil {
		return nil, fmt.Errorf("transfer: it names no %s: %w", what, errdefs.ErrInvalidArgument)
	}
	for _, m := range ends() {
		if !a.MessageIs(m) {
			continue
		}
		if err := decode(a, m); err != nil {
			return nil, err
		}
		switch m := m.(type) {
		case *transfertypes.OCIRegistry:
			t.named = append(t.named, m.GetResolver().GetAuthStream(), m.GetResolver().GetLogsStream())
		case *transfertypes.ImageImportStream:
			t.named = append(t.named, m.GetStream())
		case *transfertypes.ImageExportStream:
			t.named = append(t.named, m.GetStream())
		}
		return m, nil
	}
	return nil, fmt.Errorf("transfer: %s of the type %.200q: %w", what, a.GetTypeUrl(), errdefs.ErrNotImplemented)
}

// decode decodes a message of the type that was looked at.
func decode(a *anypb.Any, m proto.Message) error {
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		return fmt.Errorf("decode %s: %w: %w", m.ProtoReflect().Descriptor().Name(), err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// checkArchiveType refuses archives that are no tar.
func checkArchiveType(mediaType string) error {
	switch mediaType {
	case "", "application/vnd.oci.image.layout.v1+tar", "application/x-tar", "application/tar", "application/vnd.docker.image.save.v1+tar",
		"application/vnd.oci.image.layout.v1+tar+gzip", "application/x-gzip", "application/gzip":
		return nil
	}
	return fmt.Errorf("archive of the type %.100q: send a tar of an OCI layout or from docker save, plain or compressed, as application/vnd.oci.image.layout.v1+tar: %w",
		mediaType, errdefs.ErrNotImplemented)
}
