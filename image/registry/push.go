package registry

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pushTo calls do with the server that accepts pushes: the first with that capability, and no other after it,
// because an image divided between servers is incomplete on each.
func (r *Repository) pushTo(ctx context.Context, verb, what string, do func(*server) error) error {
	for _, s := range r.servers {
		if s.can&canPush == 0 {
			continue
		}
		if err := do(s); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fail(verb, what+" of "+r.ref.String(), &s.host, err)
		}
		return nil
	}
	return fmt.Errorf("registry %s: no host to push to in its hosts.toml: %w", r.ref.Host, errdefs.ErrFailedPrecondition)
}

// Exists reports whether the registry has a blob or document in this repository; a document counts under
// the reference's tag only if the tag already refers to it.
func (r *Repository) Exists(ctx context.Context, desc ocispec.Descriptor) (exists bool, err error) {
	path := "/" + r.ref.Repository + blobsPrefix + desc.Digest.String()
	header := http.Header{}
	if isDocument(desc.MediaType) {
		path = "/" + r.ref.Repository + manifestsPrefix + desc.Digest.String()
		header.Set("Accept", desc.MediaType)
	}
	ctx = r.pushScope(ctx)
	err = r.pushTo(ctx, "look for", desc.Digest.String(), func(s *server) error {
		req, err := s.request(ctx, http.MethodHead, path, header)
		if err != nil {
			return err
		}
		resp, err := s.do(req)
		if err != nil {
			return err
		}
		switch {
		case succeeded(resp):
			exists = true
		case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode >= http.StatusInternalServerError:
			return readError(resp)
		}
		// Some servers, or their storage, refuse HEAD: an upload shows what is allowed.
		return resp.Body.Close()
	})
	return exists, err
}

// succeeded reports whether an answer is a success: servers differ in which one.
func succeeded(resp *http.Response) bool { return resp.StatusCode >= 200 && resp.StatusCode < 300 }

// PushBlob uploads a blob to the repository: it is mounted from another repository of the same registry if from
// names one that has it and the registry permits it, else sent. It reports whether no byte was sent.
func (r *Repository) PushBlob(ctx context.Context, desc ocispec.Descriptor, from string, content Blob) (mounted bool, err error) {
	err = r.pushTo(ctx, "push", desc.Digest.String(), func(s *server) error {
		var location *url.URL
		if from != "" && from != r.ref.Repository {
			if mounted, location = r.mount(r.pushScope(ctx, from), s, desc, from); mounted {
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		ctx := r.pushScope(ctx)
		if location == nil {
			if location, err = r.begin(ctx, s, desc); err != nil {
				return err
			}
		}
		u := &upload{repository: r, server: s, desc: desc, content: content, location: location}
		return u.send(ctx)
	})
	return mounted, err
}

// mount requests a blob of another repository. A registry that does not mount it may begin an upload at the
// returned location; for any other response, an upload of its own shows the error.
func (r *Repository) mount(ctx context.Context, s *server, desc ocispec.Descriptor, from string) (mounted bool, location *url.URL) {
	// Once: a blob refused by a busy server is uploaded.
	ctx = context.WithValue(ctx, onceKey{}, true)
	resp, err := r.post(ctx, s, "?"+url.Values{"mount": {desc.Digest.String()}, "from": {from}}.Encode())
	if err != nil {
		return false, nil
	}
	_ = resp.Body.Close() // only the status matters
	if !succeeded(resp) {
		return false, nil
	}
	location = r.uploadLocation(s, resp)
	switch {
	case location != nil && strings.HasSuffix(location.Path, "/"+desc.Digest.String()):
		return resp.StatusCode != http.StatusAccepted, nil
	case location != nil:
		return false, location // an upload has begun, whatever the status
	}
	return resp.StatusCode == http.StatusCreated, nil
}

// begin starts an upload and returns its location.
func (r *Repository) begin(ctx context.Context, s *server, desc ocispec.Descriptor) (*url.URL, error) {
	resp, err := r.post(ctx, s, "")
	if err != nil {
		return nil, err
	}
	if !succeeded(resp) {
		return nil, readError(resp)
	}
	if err := resp.Body.Close(); err != nil {
		return nil, err
	}
	location := r.uploadLocation(s, resp)
	if location == nil {
		return nil, fmt.Errorf("upload of %s: response without a location: %w", desc.Digest, errdefs.ErrFailedPrecondition)
	}
	return location, nil
}

// post starts an upload, or the operation of the query.
func (r *Repository) post(ctx context.Context, s *server, query string) (*http.Response, error) {
	req, err := s.request(ctx, http.MethodPost, "/"+r.ref.Repository+blobsPrefix+"uploads/"+query, nil)
	if err != nil {
		return nil, err
	}
	return s.do(req)
}

// uploadLocation returns where an upload continues: at the response's Location or, if there is none, at the
// upload whose id it names; nil if it names neither.
func (r *Repository) uploadLocation(s *server, resp *http.Response) *url.URL {
	if location, err := resp.Location(); err == nil {
		return location
	}
	if id := resp.Header.Get("Docker-Upload-Uuid"); id != "" {
		location := s.base
		location.Path += "/" + r.ref.Repository + blobsPrefix + "uploads/" + id
		return &location
	}
	return nil
}

// PushManifest uploads a document whose parts are present: under its digest, or under the reference's tag as
// well. One with a subject can be found by that afterwards.
func (r *Repository) PushManifest(ctx context.Context, desc ocispec.Descriptor, raw []byte, tag bool) error {
	target := desc.Digest.String()
	if tag {
		target = r.ref.target()
	}
	ctx = r.pushScope(ctx)
	return r.pushTo(ctx, "push", desc.Digest.String(), func(s *server) error {
		resp, err := r.putManifest(ctx, s, target, desc.MediaType, raw)
		if err != nil {
			return err
		}
		if err := resp.Body.Close(); err != nil || resp.Header.Get(subjectHeader) != "" {
			return err
		}
		return r.addReferrer(ctx, s, desc, raw)
	})
}
