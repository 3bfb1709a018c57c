package registry

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pushTo calls do with the server that takes pushes: the first that may, and no other after it, because
// half an image here and half there is none.
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
	return fmt.Errorf("registry %s: its hosts.toml has no host to push to: %w", r.ref.Host, errdefs.ErrFailedPrecondition)
}

// Exists tells whether the registry has a blob or document in this repository; a document counts under
// the reference's tag only where that means it already.
func (r *Repository) Exists(ctx context.Context, desc ocispec.Descriptor) (there bool, err error) {
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
		switch resp.StatusCode {
		case http.StatusOK:
			there = true
		case http.StatusNotFound:
		default:
			return readError(resp)
		}
		return resp.Body.Close()
	})
	return there, err
}

// PushBlob puts a blob into the repository: from another repository of the same registry where from names
// one that has it, else by its bytes. It tells whether no byte was sent.
func (r *Repository) PushBlob(ctx context.Context, desc ocispec.Descriptor, from string, content Blob) (mounted bool, err error) {
	var more []string
	if from != "" {
		more = []string{from}
	}
	ctx = r.pushScope(ctx, more...)
	err = r.pushTo(ctx, "push", desc.Digest.String(), func(s *server) error {
		location, err := r.begin(ctx, s, desc, from)
		if err != nil {
			return err
		}
		if location == nil {
			mounted = true
			return nil
		}
		u := &upload{repository: r, server: s, desc: desc, content: content, location: location}
		return u.send(ctx)
	})
	return mounted, err
}

// begin asks for an upload, or for a mount, which needs none: the location is nil then.
func (r *Repository) begin(ctx context.Context, s *server, desc ocispec.Descriptor, from string) (*url.URL, error) {
	path := "/" + r.ref.Repository + blobsPrefix + "uploads/"
	if from != "" {
		path += "?" + url.Values{"mount": {desc.Digest.String()}, "from": {from}}.Encode()
	}
	req, err := s.request(ctx, http.MethodPost, path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.do(req)
	if err != nil {
		return nil, err
	}
	switch resp.StatusCode {
	case http.StatusCreated:
		return nil, resp.Body.Close()
	case http.StatusAccepted:
	default:
		return nil, readError(resp)
	}
	if err := resp.Body.Close(); err != nil {
		return nil, err
	}
	location, err := resp.Location()
	if err != nil {
		return nil, fmt.Errorf("it names no place to upload to: %w", errdefs.ErrFailedPrecondition)
	}
	return location, nil
}

// PushManifest puts a document whose parts are there: under its digest, or under the reference's tag as
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
