package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The documents of Docker's that are asked for beside OCI's, and those of old that are not.
const (
	dockerIndex     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest  = "application/vnd.docker.distribution.manifest.v2+json"
	schema1         = "application/vnd.docker.distribution.manifest.v1+json"
	schema1Signed   = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	contentDigest   = "Docker-Content-Digest"
	manifestsPrefix = "/manifests/"
	blobsPrefix     = "/blobs/"
)

func accept() http.Header {
	return http.Header{"Accept": {strings.Join([]string{
		ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, dockerIndex, dockerManifest, "*/*;q=0.1",
	}, ", ")}}
}

// Resolve asks what the reference means now. Not found if it is nothing.
func (r *Repository) Resolve(ctx context.Context) (desc ocispec.Descriptor, err error) {
	ctx = r.pullScope(ctx)
	err = r.each(ctx, canResolve, func(s *server) error {
		if desc, err = r.resolveAt(ctx, s); err != nil {
			return fail("resolve", r.ref.String(), &s.host, err)
		}
		return nil
	})
	return desc, err
}

func (r *Repository) resolveAt(ctx context.Context, s *server) (ocispec.Descriptor, error) {
	desc, err := r.ask(ctx, s, http.MethodHead)
	// Some servers answer HEAD without what is wanted, or with an error that has no words.
	if err != nil && statusOf(err) == http.StatusMethodNotAllowed || err == nil && (desc.Digest == "" || desc.Size <= 0) {
		desc, err = r.ask(ctx, s, http.MethodGet)
	}
	if err != nil {
		return desc, err
	}
	if r.ref.Digest != "" && desc.Digest != r.ref.Digest {
		return desc, fmt.Errorf("it answers with %s: the registry is wrong about its content: %w", desc.Digest, errdefs.ErrFailedPrecondition)
	}
	if desc.MediaType == schema1 || desc.MediaType == schema1Signed {
		return desc, fmt.Errorf("the image has the old format schema 1, which is not supported; have it pushed again by a client of today: %w", errdefs.ErrNotImplemented)
	}
	return desc, nil
}

// ask asks for the manifest, and with GET reads it to find digest and size.
func (r *Repository) ask(ctx context.Context, s *server, method string) (ocispec.Descriptor, error) {
	var desc ocispec.Descriptor
	req, err := s.request(ctx, method, "/"+r.ref.Repository+manifestsPrefix+r.ref.target(), accept())
	if err != nil {
		return desc, err
	}
	resp, err := s.do(req)
	if err != nil {
		return desc, err
	}
	if resp.StatusCode != http.StatusOK {
		return desc, readError(resp)
	}
	defer func() { _ = resp.Body.Close() }()
	desc.MediaType, _, err = mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return desc, fmt.Errorf("it names no media type: is this a registry? %w", errdefs.ErrFailedPrecondition)
	}
	if method == http.MethodHead {
		if d, err := digest.Parse(resp.Header.Get(contentDigest)); err == nil {
			desc.Digest, desc.Size = d, resp.ContentLength
		}
		return desc, nil
	}
	raw, err := readManifest(resp.Body)
	if err != nil {
		return desc, err
	}
	algorithm := digest.Canonical
	if r.ref.Digest != "" {
		algorithm = r.ref.Digest.Algorithm()
	}
	desc.Digest, desc.Size = algorithm.FromBytes(raw), int64(len(raw))
	return desc, nil
}

// readManifest reads a document, which is not larger than any that is taken.
func readManifest(r io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
	if err == nil && len(raw) > maxManifest {
		return nil, tooLarge()
	}
	return raw, err
}

func tooLarge() error {
	return fmt.Errorf("its manifest is larger than %d bytes, which is not read: %w", maxManifest, errdefs.ErrInvalidArgument)
}

var errShort = errors.New("it ended before all bytes were there")
