// Package transfer serves the transfer and streaming services: the ends of a transfer (ends.go, and
// cleat's own in own_ends.go), its streams, and its progress.
package transfer

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"

	api "github.com/containerd/containerd/api/services/transfer/v1"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/service/transfer"
	"github.com/cleatproject/cleat/daemon/streams"
)

// transfers is containerd.services.transfer.v1, by which cleat's own client moves images as well. What it
// does is daemon/service/transfer's; here are the streams that a call names, and in ends.go its ends.
type transfers struct {
	move    *transfer.Service
	log     *slog.Logger
	streams *streams.Manager
	api.UnsafeTransferServer
}

var (
	_ api.TransferServer       = transfers{}
	_ api.TTRPCTransferService = transfers{}
)

// Transfer moves images between registries, archives and the namespace's store.
func (s transfers) Transfer(ctx context.Context, req *api.TransferRequest) (_ *emptypb.Empty, err error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := &call{move: s.move, log: s.log, namespace: ns, streams: s.streams, scopes: []string{namespaceScope(ns)}}
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
	watch.own = t.own
	return &emptypb.Empty{}, t.run(ctx, source, destination, watch)
}

// call is one call.
type call struct {
	move      *transfer.Service
	log       *slog.Logger
	namespace string
	streams   *streams.Manager
	scopes    []string
	own       bool     // cleat's client is at the other side
	named     []string // the ids of the streams of both ends
	taken     []*streams.Stream
	stops     []func() bool
}

// run does what source and destination ask for.
func (t *call) run(ctx context.Context, source, destination end, watch transfer.Watcher) error {
	switch from := source.(type) {
	case remoteEnd:
		if to, ok := destination.(storeEnd); ok {
			return t.pull(ctx, from, to, watch)
		}
	case readEnd:
		switch to := destination.(type) {
		case storeEnd:
			return t.importImages(ctx, from, to, watch)
		case writeEnd:
			return t.echo(ctx, from, to)
		}
	case storeEnd:
		store, err := from.source()
		if err != nil {
			return err
		}
		switch to := destination.(type) {
		case remoteEnd:
			return t.push(ctx, store, to, watch)
		case writeEnd:
			return t.export(ctx, store, to, watch)
		case storeEnd:
			return t.tag(ctx, store, to, watch)
		}
	}
	return fmt.Errorf("transfer from %s to %s: %w", source.name(), destination.name(), errdefs.ErrNotImplemented)
}

func (t *call) pull(ctx context.Context, from remoteEnd, to storeEnd, watch transfer.Watcher) error {
	remote, err := from.remote(ctx, t)
	if err != nil {
		return err
	}
	store, err := to.destination()
	if err != nil {
		return err
	}
	return t.move.Pull(ctx, t.namespace, remote, store, watch)
}

func (t *call) push(ctx context.Context, from transfer.Store, to remoteEnd, watch transfer.Watcher) error {
	remote, err := to.remote(ctx, t)
	if err != nil {
		return err
	}
	return t.move.Push(ctx, t.namespace, from, remote, watch)
}

func (t *call) importImages(ctx context.Context, from readEnd, to storeEnd, watch transfer.Watcher) error {
	store, err := to.destination()
	if err != nil {
		return err
	}
	archive, err := from.read(ctx, t)
	if err != nil {
		return err
	}
	return t.move.Import(ctx, t.namespace, archive, store, watch)
}

// echo sends the bytes of one stream on another, whatever they are.
func (t *call) echo(ctx context.Context, from readEnd, to writeEnd) error {
	in, err := from.read(ctx, t)
	if err != nil {
		return err
	}
	out, err := to.write(ctx, t, transfer.Store{})
	if err != nil {
		return err
	}
	if in.In == nil || out.Out == nil {
		return fmt.Errorf("transfer of an archive that is a file: only streams are echoed: %w", errdefs.ErrNotImplemented)
	}
	if _, err := io.Copy(out.Out, in.In); err != nil {
		return fmt.Errorf("echo stream: %w", err)
	}
	return nil
}

func (t *call) export(ctx context.Context, from transfer.Store, to writeEnd, watch transfer.Watcher) error {
	archive, err := to.write(ctx, t, from)
	if err != nil {
		return err
	}
	return t.move.Export(ctx, t.namespace, from, archive, watch)
}

func (t *call) tag(ctx context.Context, from transfer.Store, to storeEnd, watch transfer.Watcher) error {
	store, err := to.destination()
	if err != nil {
		return err
	}
	return t.move.Tag(ctx, t.namespace, from, store, watch)
}

// take takes a stream for the length of the call: it ends with the call, or when the call is cancelled.
func (t *call) take(ctx context.Context, id string) (*streams.Stream, error) {
	s, err := t.streams.Take(id, t.scopes...)
	if err != nil {
		return nil, err
	}
	t.taken = append(t.taken, s)
	t.stops = append(t.stops, context.AfterFunc(ctx, func() { s.Close(context.Cause(ctx)) }))
	return s, nil
}

// close ends the streams. Those of bytes report to their clients whether all was well; so do those that a failed
// call did not reach, as no other call will.
func (t *call) close(ctx context.Context, err error) {
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

// decode decodes a message of the type that was looked at.
func decode(a *anypb.Any, m proto.Message) error {
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		return fmt.Errorf("decode %s: %w: %w", m.ProtoReflect().Descriptor().Name(), err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// checkArchiveType refuses archives that are not a tar.
func checkArchiveType(mediaType string) error {
	switch mediaType {
	case "", "application/vnd.oci.image.layout.v1+tar", "application/x-tar", "application/tar", "application/vnd.docker.image.save.v1+tar",
		"application/vnd.oci.image.layout.v1+tar+gzip", "application/x-gzip", "application/gzip":
		return nil
	}
	return fmt.Errorf("archive of the type %.100q: send a tar of an OCI layout or from docker save, plain or compressed, as application/vnd.oci.image.layout.v1+tar: %w",
		mediaType, errdefs.ErrNotImplemented)
}
