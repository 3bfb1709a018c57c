package transfer

import (
	"context"
	"fmt"

	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatproject/cleat/daemon/api/wire"
	"github.com/cleatproject/cleat/daemon/service/transfer"
	"github.com/cleatproject/cleat/daemon/streams"
	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/rpc"
)

// end is a source or destination of a transfer, and one or more of those below.
type end interface {
	// name is its message's.
	name() string
	// streams returns the ids of the streams that the message names; the transfer may not use all.
	streams() []string
}

type remoteEnd interface {
	remote(ctx context.Context, t *call) (transfer.Remote, error)
}

type storeEnd interface {
	source() (transfer.Store, error)
	destination() (transfer.Store, error)
}

type readEnd interface {
	read(ctx context.Context, t *call) (transfer.Archive, error)
}

type writeEnd interface {
	write(ctx context.Context, t *call, from transfer.Store) (transfer.Archive, error)
}

// The published ends.
type (
	ociRegistry  struct{ *transfertypes.OCIRegistry }
	imageStore   struct{ *transfertypes.ImageStore }
	importStream struct {
		*transfertypes.ImageImportStream
	}
	exportStream struct {
		*transfertypes.ImageExportStream
	}
)

var (
	_ remoteEnd = ociRegistry{}
	_ storeEnd  = imageStore{}
	_ readEnd   = importStream{}
	_ writeEnd  = exportStream{}
)

func (ociRegistry) name() string  { return "OCIRegistry" }
func (imageStore) name() string   { return "ImageStore" }
func (importStream) name() string { return "ImageImportStream" }
func (exportStream) name() string { return "ImageExportStream" }

func (e ociRegistry) streams() []string {
	return []string{e.GetResolver().GetAuthStream(), e.GetResolver().GetLogsStream()}
}
func (imageStore) streams() []string     { return nil }
func (e importStream) streams() []string { return []string{e.GetStream()} }
func (e exportStream) streams() []string { return []string{e.GetStream()} }

func (e imageStore) source() (transfer.Store, error) { return fromWireStore(e.ImageStore), nil }

func (e imageStore) destination() (transfer.Store, error) { return fromWireStore(e.ImageStore), nil }

func (e importStream) read(ctx context.Context, t *call) (transfer.Archive, error) {
	if err := checkArchiveType(e.GetMediaType()); err != nil {
		return transfer.Archive{}, err
	}
	s, err := t.take(ctx, e.GetStream())
	if err != nil {
		return transfer.Archive{}, err
	}
	return transfer.Archive{In: streams.NewReader(s), Compress: e.GetForceCompress()}, nil
}

func (e exportStream) write(ctx context.Context, t *call, from transfer.Store) (transfer.Archive, error) {
	if err := checkArchiveType(e.GetMediaType()); err != nil {
		return transfer.Archive{}, err
	}
	s, err := t.take(ctx, e.GetStream())
	if err != nil {
		return transfer.Archive{}, err
	}
	wanted := from.Choice.Platforms
	if list := wire.FromPlatforms(e.GetPlatforms()); len(list) > 0 {
		wanted = list
	}
	if e.GetAllPlatforms() {
		wanted = nil
	}
	out := transfer.Archive{Out: streams.NewWriter(s), Export: exportOptions(wanted)}
	out.Export.Plain, out.Export.NoForeign = e.GetSkipCompatibilityManifest(), e.GetSkipNonDistributable()
	return out, nil
}

// decodeEnd decodes a source or destination, and notes the streams that it names.
func (t *call) decodeEnd(what string, a *anypb.Any) (end, error) {
	if a == nil {
		return nil, fmt.Errorf("transfer: it names no %s: %w", what, errdefs.ErrInvalidArgument)
	}
	e, m := newEnd(string(a.MessageName()))
	var err error
	switch m := m.(type) {
	case proto.Message:
		err = decode(a, m)
	case rpc.Message:
		if err = m.Unmarshal(a.GetValue()); err != nil {
			err = fmt.Errorf("decode %s: %w: %w", e.name(), err, errdefs.ErrInvalidArgument)
		}
		t.own = true
	default:
		err = fmt.Errorf("transfer: %s of the type %.200q: %w", what, a.GetTypeUrl(), errdefs.ErrNotImplemented)
	}
	if err != nil {
		return nil, err
	}
	t.named = append(t.named, e.streams()...)
	return e, nil
}

// newEnd returns an end of a type, and its message to decode; nil if there is none.
func newEnd(typ string) (end, any) {
	switch typ {
	case "containerd.types.transfer.OCIRegistry":
		m := &transfertypes.OCIRegistry{}
		return ociRegistry{m}, m
	case "containerd.types.transfer.ImageStore":
		m := &transfertypes.ImageStore{}
		return imageStore{m}, m
	case "containerd.types.transfer.ImageImportStream":
		m := &transfertypes.ImageImportStream{}
		return importStream{m}, m
	case "containerd.types.transfer.ImageExportStream":
		m := &transfertypes.ImageExportStream{}
		return exportStream{m}, m
	case cleatapi.RegistryType:
		m := &cleatapi.Registry{}
		return ownRegistry{m}, m
	case cleatapi.ImageStoreType:
		m := &cleatapi.ImageStore{}
		return ownStore{m}, m
	case cleatapi.ArchiveFileType:
		m := &cleatapi.ArchiveFile{}
		return archiveFile{m}, m
	}
	return nil, nil
}
