package registry

import (
	"context"
	"encoding/json"
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

// The media types of Docker that are requested in addition to OCI's, and old ones that are not.
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

// Resolve returns the current target of the reference. Not found if it does not exist.
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
	// Some servers answer HEAD without the needed headers, or refuse it without a body that gives the reason.
	if headRefused(statusOf(err)) || err == nil && (desc.Digest == "" || desc.Size <= 0 || !isDocument(desc.MediaType) && !isSchema1(desc.MediaType)) {
		desc, err = r.ask(ctx, s, http.MethodGet)
	}
	if err != nil {
		return desc, err
	}
	if r.ref.Digest != "" && desc.Digest != r.ref.Digest {
		return desc, fmt.Errorf("got %s: the registry is wrong about its content: %w", desc.Digest, errdefs.ErrFailedPrecondition)
	}
	if isSchema1(desc.MediaType) {
		return desc, fmt.Errorf("image format schema 1 is not supported, it must be pushed again by a current client: %w", errdefs.ErrNotImplemented)
	}
	return desc, nil
}

func isSchema1(mediaType string) bool { return mediaType == schema1 || mediaType == schema1Signed }

// headRefused reports whether GET may succeed after a HEAD of that status. It will not for content that
// does not exist, or for an unknown user.
func headRefused(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusNotFound, http.StatusTooManyRequests:
		return false
	}
	return status >= 400 && status < 500 || status == http.StatusNotImplemented
}

// ask requests the manifest, and with GET reads it to find digest, size and, if the server does not state it,
// its media type.
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
	if !succeeded(resp) {
		return desc, readError(resp)
	}
	defer func() { _ = resp.Body.Close() }()
	if mediaType, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err == nil {
		desc.MediaType = mediaType
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
	if desc.MediaType, err = documentType(desc.MediaType, raw); err != nil {
		return desc, err
	}
	algorithm := digest.Canonical
	if r.ref.Digest != "" {
		algorithm = r.ref.Digest.Algorithm()
	}
	desc.Digest, desc.Size = algorithm.FromBytes(raw), int64(len(raw))
	return desc, nil
}

// documentType returns the media type of a document: the server's if that is one of a document, else the
// one that the document states or, by its fields, must have.
func documentType(said string, raw []byte) (string, error) {
	if isDocument(said) || isSchema1(said) {
		return said, nil
	}
	var doc struct {
		MediaType string `json:"mediaType"`
		Config    *struct {
			MediaType string `json:"mediaType"`
		} `json:"config"`
		Manifests json.RawMessage `json:"manifests"`
		FSLayers  json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return "", fmt.Errorf("response of media type %.100q is not a manifest: %w", said, errdefs.ErrFailedPrecondition)
	}
	switch {
	case isDocument(doc.MediaType):
		return doc.MediaType, nil
	case doc.Config != nil && strings.HasPrefix(doc.Config.MediaType, "application/vnd.docker."):
		return dockerManifest, nil
	case doc.Config != nil:
		return ocispec.MediaTypeImageManifest, nil
	case doc.Manifests != nil:
		return ocispec.MediaTypeImageIndex, nil
	case doc.FSLayers != nil:
		return schema1, nil
	}
	return "", fmt.Errorf("response of media type %.100q is not a manifest: %w", said, errdefs.ErrFailedPrecondition)
}

// readManifest reads a document of bounded size.
func readManifest(r io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
	if err == nil && len(raw) > maxManifest {
		return nil, tooLarge()
	}
	return raw, err
}

func tooLarge() error {
	return fmt.Errorf("manifest exceeds the maximum of %d bytes: %w", maxManifest, errdefs.ErrInvalidArgument)
}

var errShort = errors.New("unexpected end")
