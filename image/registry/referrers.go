package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxReferrers bounds a list, and maxReferrerPages the responses that it comes in.
	maxReferrers     = 10_000
	maxReferrerPages = 100
)

// Referrers lists the documents of the repository that refer to the one of that digest: those of one type, or
// all for "". For a registry without that endpoint, it reads the list that clients maintain under the tag
// ALGORITHM-DIGEST, as in OCI distribution 1.1. The list is empty for a document without referrers, or one that does
// not exist.
func (r *Repository) Referrers(ctx context.Context, d digest.Digest, artifactType string) (list []ocispec.Descriptor, err error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("referrers of %.160q: %w: %w", d, err, errdefs.ErrInvalidArgument)
	}
	ctx = r.pullScope(ctx)
	err = r.each(ctx, canResolve, func(s *server) error {
		if list, err = r.referrersAt(ctx, s, d, artifactType); err != nil {
			return fail("list referrers of", r.ref.String(), &s.host, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []ocispec.Descriptor
	for _, desc := range list { // a server need not filter
		if artifactType == "" || desc.ArtifactType == artifactType {
			out = append(out, desc)
		}
	}
	return out, nil
}

func (r *Repository) referrersAt(ctx context.Context, s *server, d digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	next := "/" + r.ref.Repository + "/referrers/" + d.String()
	if artifactType != "" {
		next += "?artifactType=" + url.QueryEscape(artifactType)
	}
	var list []ocispec.Descriptor
	for page := 0; next != ""; page++ {
		if page == maxReferrerPages {
			return nil, fmt.Errorf("list has more than %d parts: %w", maxReferrerPages, errdefs.ErrInvalidArgument)
		}
		part, link, err := r.referrersPage(ctx, s, next)
		if status := statusOf(err); page == 0 && (status == http.StatusNotFound || status == http.StatusMethodNotAllowed || status == http.StatusBadRequest) {
			return r.referrersByTag(ctx, s, d)
		}
		if err != nil {
			return nil, err
		}
		if list = append(list, part...); len(list) > maxReferrers {
			return nil, fmt.Errorf("list has more than %d entries: %w", maxReferrers, errdefs.ErrInvalidArgument)
		}
		next = link
	}
	return list, nil
}

// referrersByTag reads the list that clients maintain themselves.
func (r *Repository) referrersByTag(ctx context.Context, s *server, d digest.Digest) ([]ocispec.Descriptor, error) {
	list, _, err := r.referrersPage(ctx, s, "/"+r.ref.Repository+manifestsPrefix+referrersTag(d))
	if statusOf(err) == http.StatusNotFound {
		return nil, nil
	}
	return list, err
}

// referrersPage reads one response, and the location of the next one; "" for the last.
func (r *Repository) referrersPage(ctx context.Context, s *server, path string) (list []ocispec.Descriptor, next string, err error) {
	req, err := s.request(ctx, http.MethodGet, path, http.Header{"Accept": {ocispec.MediaTypeImageIndex}})
	if err != nil {
		return nil, "", err
	}
	resp, err := s.do(req)
	if err != nil {
		return nil, "", err
	}
	if !succeeded(resp) {
		return nil, "", readError(resp)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	raw, err := readManifest(resp.Body)
	if err != nil {
		return nil, "", err
	}
	var index struct {
		MediaType string               `json:"mediaType"`
		Manifests []ocispec.Descriptor `json:"manifests"`
		Layers    json.RawMessage      `json:"layers"`
		Config    json.RawMessage      `json:"config"`
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, "", fmt.Errorf("list is not JSON: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	if index.MediaType != "" && index.MediaType != ocispec.MediaTypeImageIndex || index.Layers != nil || index.Config != nil {
		return nil, "", fmt.Errorf("list is not an index: %w", errdefs.ErrFailedPrecondition)
	}
	for _, d := range index.Manifests {
		if err := d.Digest.Validate(); err != nil || d.Size < 0 {
			return nil, "", fmt.Errorf("list has an invalid descriptor, %.160q: %w", d.Digest, errdefs.ErrFailedPrecondition)
		}
	}
	next, err = s.nextPage(req.URL, resp.Header.Get("Link"))
	return index.Manifests, next, err
}

// nextPage parses the location of the next page, which has to be on the same server and below the API's root.
func (s *server) nextPage(at *url.URL, link string) (string, error) {
	target, rest, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(link), "<"), ">")
	if !ok || !strings.Contains(strings.ReplaceAll(rest, `"`, ""), "rel=next") {
		return "", nil
	}
	u, err := at.Parse(target)
	if err != nil {
		return "", fmt.Errorf("list continues at an invalid URL: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	below, ok := strings.CutPrefix(u.EscapedPath(), s.base.EscapedPath())
	if !ok || u.Host != at.Host || u.Scheme != at.Scheme || !strings.HasPrefix(below, "/") {
		return "", fmt.Errorf("list continues at another server: %w", errdefs.ErrFailedPrecondition)
	}
	if u.RawQuery != "" {
		below += "?" + u.RawQuery
	}
	return below, nil
}
