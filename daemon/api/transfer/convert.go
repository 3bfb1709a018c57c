package transfer

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"

	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/daemon/api/wire"
	"github.com/cleatproject/cleat/daemon/service/transfer"
	"github.com/cleatproject/cleat/daemon/streams"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/layout"
	"github.com/cleatproject/cleat/image/registry"
)

// remote takes a registry off the wire, with its stream for credentials.
func (r ociRegistry) remote(ctx context.Context, t *call) (transfer.Remote, error) {
	remote := transfer.Remote{Reference: r.GetReference()}
	resolver := r.GetResolver()
	switch scheme := resolver.GetDefaultScheme(); scheme {
	case "", "http", "https":
		remote.Access.Scheme = scheme
	default:
		return remote, fmt.Errorf("registry resolver: default_scheme %.50q: want http or https: %w", scheme, errdefs.ErrInvalidArgument)
	}
	if dir := resolver.GetHostDir(); dir != "" {
		if !filepath.IsAbs(dir) {
			return remote, fmt.Errorf("registry resolver: host_dir %q: its path is not absolute: %w", dir, errdefs.ErrInvalidArgument)
		}
		remote.Access.ConfigPath = dir
	}
	for name, value := range resolver.GetHeaders() {
		if remote.Access.Header == nil {
			remote.Access.Header = make(http.Header)
		}
		remote.Access.Header.Set(name, value)
	}
	if id := resolver.GetAuthStream(); id != "" {
		s, err := t.take(ctx, id)
		if err != nil {
			return remote, err
		}
		remote.Access.Ask = asker(s)
	}
	var err error
	remote.Access.Trace, err = t.trace(ctx, resolver)
	return remote, err
}

// asker asks a client for a credential. Requests of one registry come one by one.
func asker(s *streams.Stream) func(context.Context, string, string, []string) (registry.Credential, error) {
	return func(_ context.Context, host, reference string, challenges []string) (c registry.Credential, err error) {
		if err := s.Send(&transfertypes.AuthRequest{Host: host, Reference: reference, Wwwauthenticate: challenges}); err != nil {
			return c, err
		}
		var answer transfertypes.AuthResponse
		if err := s.Into(&answer); err != nil {
			return c, err
		}
		if at := answer.GetExpireAt(); at != nil {
			c.Expires = at.AsTime()
		}
		switch answer.GetAuthType() {
		case transfertypes.AuthType_NONE:
		case transfertypes.AuthType_CREDENTIALS:
			c.Username, c.Password = answer.GetUsername(), answer.GetSecret()
		case transfertypes.AuthType_REFRESH:
			c.Username, c.IdentityToken = answer.GetUsername(), answer.GetSecret()
		case transfertypes.AuthType_HEADER:
			c.Authorization = answer.GetSecret()
		default:
			return c, fmt.Errorf("it answers with the type %d: %w", answer.GetAuthType(), errdefs.ErrInvalidArgument)
		}
		if strings.ContainsAny(c.Authorization, "\r\n\x00") {
			return registry.Credential{}, fmt.Errorf("it answers with a header of several lines: %w", errdefs.ErrInvalidArgument)
		}
		return c, nil
	}
}

// fromWireStore returns a source or destination in the image store.
func fromWireStore(m *transfertypes.ImageStore) transfer.Store {
	s := transfer.Store{
		Name: m.GetName(), Labels: m.GetLabels(),
		Choice: image.Choice{
			Platforms: wire.FromPlatforms(m.GetPlatforms()), Limit: int(min(m.GetManifestLimit(), 1<<20)), Documents: m.GetAllMetadata(),
		},
	}
	for _, r := range m.GetExtraReferences() {
		s.References = append(s.References, transfer.Reference{
			Name: r.GetName(), Prefix: r.GetIsPrefix(), Overwrite: r.GetAllowOverwrite(),
			Digest: r.GetAddDigest(), SkipNamed: r.GetSkipNamedDigest(),
		})
	}
	for _, u := range m.GetUnpacks() {
		out := transfer.Unpack{Snapshotter: u.GetSnapshotter()}
		if p := u.GetPlatform(); p.GetOS() != "" || p.GetArchitecture() != "" {
			one := wire.FromPlatform(p)
			out.Platform = &one
		}
		s.Unpacks = append(s.Unpacks, out)
	}
	return s
}

// exportOptions says what goes into an archive: with one platform its manifest, with several the index
// as well, with none what is here.
func exportOptions(wanted []ocispec.Platform) layout.ExportOptions {
	switch len(wanted) {
	case 0:
		return layout.ExportOptions{}
	case 1:
		return layout.ExportOptions{Platform: platforms.Only(wanted[0])}
	default:
		return layout.ExportOptions{Some: &image.Choice{Platforms: wanted}}
	}
}
