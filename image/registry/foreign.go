package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/retry"
)

// maxURLs bounds the URLs of a layer that are tried.
const maxURLs = 8

// openForeign fetches a layer that the registry does not store from the URLs that its descriptor names:
// over TLS only, without a credential, and never from this machine. missing is the registry's error.
func (r *Repository) openForeign(ctx context.Context, desc ocispec.Descriptor, offset int64, missing error) (io.ReadCloser, error) {
	errs := missing
	for _, text := range desc.URLs[:min(len(desc.URLs), maxURLs)] {
		rc, err := r.openURL(ctx, text, desc, offset)
		if err == nil {
			return rc, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		errs = errors.Join(errs, err)
	}
	return nil, errs
}

func (r *Repository) openURL(ctx context.Context, text string, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("layer %s: URL %.100q: want https: %w", desc.Digest, text, errdefs.ErrInvalidArgument)
	}
	if isThisMachine(u) && !isLoopback(r.ref.Host) {
		return nil, fmt.Errorf("layer %s: URL of this machine is not allowed: %w", desc.Digest, errdefs.ErrInvalidArgument)
	}
	hosts, err := r.client.hostsFor(r.config, u.Host, "")
	if err != nil {
		return nil, err
	}
	h := hosts[len(hosts)-1] // for its certificates; headers are for the registry's API
	transport, err := newTransport(&h)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	client := &http.Client{
		Transport:     &retry.Transport{Base: transport, Policy: retryPolicy(r.client.opts.Backoff, maxWait, maxTries)},
		CheckRedirect: checkRedirect,
	}
	rc, err := get(ctx, client, u, r.client.opts.UserAgent, desc.Size, offset)
	if err != nil {
		cancel()
		transport.CloseIdleConnections()
		return nil, fail("fetch layer", desc.Digest.String()+" of "+r.ref.String(), &host{base: *u}, err)
	}
	return closing{newStalling(cancel, rc, r.client.opts.Idle), transport}, nil
}

func get(ctx context.Context, client *http.Client, u *url.URL, agent string, size, offset int64) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", agent)
	span{offset, 0}.ask(req)
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	return bodyOf(resp, size, span{offset, 0})
}

// closing closes a body and its connections.
type closing struct {
	io.ReadCloser
	transport *http.Transport
}

func (c closing) Close() error {
	err := c.ReadCloser.Close()
	c.transport.CloseIdleConnections()
	return err
}
