package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// subjectHeader is in the response of a registry that maintains referrers itself.
const subjectHeader = "OCI-Subject"

// referrer holds the members of a document that matter for finding it by its subject.
type referrer struct {
	Subject      *ocispec.Descriptor `json:"subject"`
	ArtifactType string              `json:"artifactType"`
	Config       struct {
		MediaType string `json:"mediaType"`
	} `json:"config"`
	Annotations map[string]string `json:"annotations"`
}

// addReferrer makes a pushed document be found by its subject, if it has one, at a registry that does
// not maintain referrers: by an index under a tag made of the subject's digest, as in OCI distribution 1.1.
// A concurrent update by another client may overwrite it; the protocol does not prevent that.
func (r *Repository) addReferrer(ctx context.Context, s *server, desc ocispec.Descriptor, raw []byte) error {
	if desc.MediaType != ocispec.MediaTypeImageManifest && desc.MediaType != ocispec.MediaTypeImageIndex {
		return nil
	}
	var doc referrer
	if err := json.Unmarshal(raw, &doc); err != nil {
		return fmt.Errorf("read the subject of %s: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	if doc.Subject == nil {
		return nil
	}
	if err := doc.Subject.Digest.Validate(); err != nil {
		return fmt.Errorf("subject of %s: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	tag := referrersTag(doc.Subject.Digest)
	index, err := r.subjectIndex(ctx, s, tag)
	if err != nil {
		return fmt.Errorf("index of referrers %s: %w", tag, err)
	}
	for _, d := range index.Manifests {
		if d.Digest == desc.Digest {
			return nil
		}
	}
	entry := ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size, ArtifactType: doc.ArtifactType, Annotations: doc.Annotations}
	if entry.ArtifactType == "" {
		entry.ArtifactType = doc.Config.MediaType
	}
	index.Manifests = append(index.Manifests, entry)
	out, err := json.Marshal(index)
	if err != nil {
		return err
	}
	resp, err := r.putManifest(ctx, s, tag, ocispec.MediaTypeImageIndex, out)
	if err != nil {
		return fmt.Errorf("index of referrers %s: %w", tag, err)
	}
	return resp.Body.Close()
}

// referrersTag returns the tag of the index of a document's referrers.
func referrersTag(d digest.Digest) string {
	return fmt.Sprintf("%.32s-%.64s", d.Algorithm(), d.Encoded())
}

// subjectIndex returns the index under a tag, or an empty one.
func (r *Repository) subjectIndex(ctx context.Context, s *server, tag string) (index ocispec.Index, err error) {
	index = ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	header := http.Header{"Accept": {ocispec.MediaTypeImageIndex}}
	req, err := s.request(ctx, http.MethodGet, "/"+r.ref.Repository+manifestsPrefix+tag, header)
	if err != nil {
		return index, err
	}
	resp, err := s.do(req)
	if err != nil {
		return index, err
	}
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return index, resp.Body.Close()
	case !succeeded(resp):
		return index, readError(resp)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := readManifest(resp.Body)
	if err != nil {
		return index, err
	}
	var current ocispec.Index
	if err := json.Unmarshal(raw, &current); err != nil || current.MediaType != ocispec.MediaTypeImageIndex {
		return index, fmt.Errorf("tag refers to something else: %w", errdefs.ErrFailedPrecondition)
	}
	return current, nil
}

// putManifest uploads a document under a tag or digest. The caller closes the response, which is a success.
func (r *Repository) putManifest(ctx context.Context, s *server, target, mediaType string, raw []byte) (*http.Response, error) {
	req, err := s.request(ctx, http.MethodPut, "/"+r.ref.Repository+manifestsPrefix+target, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", mediaType)
	req.ContentLength = int64(len(raw))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }
	req.Body = io.NopCloser(bytes.NewReader(raw))
	resp, err := s.do(req)
	if err != nil {
		return nil, err
	}
	if !succeeded(resp) {
		return nil, readError(resp)
	}
	return resp, nil
}
