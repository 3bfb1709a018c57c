package transfer

import (
	"context"

	"github.com/cleatproject/cleat/image/registry"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// Referrers returns what a registry has that refers to an image. Called by daemon/api/native/images.go.
func (s *Service) Referrers(ctx context.Context, req *cleatapi.ReferrersRequest) (*cleatapi.ReferrersResponse, error) {
	ref, err := registry.Parse(req.Reference)
	if err != nil {
		return nil, err
	}
	repo, err := s.registries.Repository(ref, registry.Access{Credential: credential(req.Credential)})
	if err != nil {
		return nil, err
	}
	defer repo.Close()
	desc, err := repo.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	list, err := repo.Referrers(ctx, desc.Digest, req.ArtifactType)
	if err != nil {
		return nil, err
	}
	resp := &cleatapi.ReferrersResponse{Digest: desc.Digest.String()}
	for _, d := range list {
		resp.Referrers = append(resp.Referrers, &cleatapi.Referrer{
			Digest: d.Digest.String(), MediaType: d.MediaType, ArtifactType: d.ArtifactType, Size_: d.Size, Annotations: d.Annotations,
		})
	}
	return resp, nil
}

// credential takes a credential off the wire.
func credential(c *cleatapi.Credential) registry.Credential {
	if c == nil {
		return registry.Credential{}
	}
	return registry.Credential{
		Username: c.Username, Password: c.Password, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken,
	}
}
