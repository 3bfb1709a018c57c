package transfer

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/service/images"
	"github.com/cleatproject/cleat/daemon/service/transfer"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// mostParallel bounds what a client may ask for.
const mostParallel = 1 << 10

// cleat's own ends; see proto/cleatapi/cleat.proto.
type (
	ownRegistry struct{ *cleatapi.Registry }
	ownStore    struct{ *cleatapi.ImageStore }
	archiveFile struct{ *cleatapi.ArchiveFile }
)

var (
	_ remoteEnd = ownRegistry{}
	_ storeEnd  = ownStore{}
	_ readEnd   = archiveFile{}
	_ writeEnd  = archiveFile{}
)

func (ownRegistry) name() string { return cleatapi.RegistryType }
func (ownStore) name() string    { return cleatapi.ImageStoreType }
func (archiveFile) name() string { return cleatapi.ArchiveFileType }

func (e ownRegistry) streams() []string { return []string{e.AuthStream} }
func (ownStore) streams() []string      { return nil }
func (archiveFile) streams() []string   { return nil }

func (e ownRegistry) remote(ctx context.Context, t *call) (transfer.Remote, error) {
	out := transfer.Remote{Reference: e.Reference, Parallel: int(min(e.MaxConcurrent, mostParallel))}
	if e.AuthStream != "" {
		s, err := t.take(ctx, e.AuthStream)
		if err != nil {
			return out, err
		}
		out.Access.Ask = asker(s)
	}
	return out, nil
}

// common is what source and destination have in common.
func (e ownStore) common() (out transfer.Store, on *ocispec.Platform, err error) {
	out = transfer.Store{Loose: true, Whole: e.AllPlatforms}
	if len(e.Names) > 0 {
		out.Name = e.Names[0]
	}
	if e.Platform != "" {
		p, err := images.ParsePlatform(e.Platform)
		if err != nil {
			return out, nil, err
		}
		on = &p
		out.Choice.Platforms = []ocispec.Platform{p}
	}
	return out, on, nil
}

func (e ownStore) source() (transfer.Store, error) {
	out, _, err := e.common()
	if err != nil {
		return out, err
	}
	if e.Platform != "" && e.AllPlatforms {
		return out, fmt.Errorf("image store: platform and all-platforms exclude each other: %w", errdefs.ErrInvalidArgument)
	}
	out.Referrers = e.Referrers
	for _, name := range e.Names[min(1, len(e.Names)):] {
		out.References = append(out.References, transfer.Reference{Name: name})
	}
	return out, nil
}

func (e ownStore) destination() (transfer.Store, error) {
	out, on, err := e.common()
	if err != nil {
		return out, err
	}
	if len(e.Names) > 1 {
		return out, fmt.Errorf("image store: %d names to store under, want one: %w", len(e.Names), errdefs.ErrInvalidArgument)
	}
	if out.Best = !e.AllPlatforms; e.AllPlatforms {
		out.Choice.Platforms = nil
	}
	if !e.NoUnpack {
		// What is there for all its platforms need not have this machine's.
		required := on != nil || !e.AllPlatforms
		out.Unpacks = []transfer.Unpack{{Platform: on, Snapshotter: e.Snapshotter, Required: required}}
	}
	return out, nil
}

func (e archiveFile) path(ctx context.Context) (transfer.Archive, error) {
	if e.Path == "" {
		return transfer.Archive{}, fmt.Errorf("archive file: it has no path: %w", errdefs.ErrInvalidArgument)
	}
	return transfer.Archive{Path: e.Path, Owner: access.ArchiveOwner(ctx)}, nil
}

func (e archiveFile) read(ctx context.Context, _ *call) (transfer.Archive, error) {
	return e.path(ctx)
}

func (e archiveFile) write(ctx context.Context, _ *call, from transfer.Store) (transfer.Archive, error) {
	out, err := e.path(ctx)
	out.Export = exportOptions(from.Choice.Platforms)
	return out, err
}
