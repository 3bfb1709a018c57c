package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Blob opens the content to send, from an offset on.
type Blob = func(offset int64) (io.ReadCloser, error)

// upload is a blob that is being uploaded.
type upload struct {
	repository *Repository
	server     *server
	desc       ocispec.Descriptor
	content    Blob
	location   *url.URL // where it continues

	offset   int64 // received by the registry
	failures int   // consecutive interruptions without progress
	restarts int   // restarts, because the registry lost the upload
}

// maxRestarts bounds the restarts of an upload. Registries that drop an upload when its
// connection breaks make them necessary (docker-registry does).
const maxRestarts = 3

// errNoChunks is returned for a registry that accepts blobs in one piece only.
var errNoChunks = errors.New("chunks are not supported")

// send sends the blob: in one request if it is small, else in chunks, so that an interrupted upload continues
// where the registry has it.
func (u *upload) send(ctx context.Context) error {
	if chunk := u.repository.client.opts.Chunk; chunk > 0 && u.desc.Size > chunk {
		err := u.chunks(ctx, chunk)
		if !errors.Is(err, errNoChunks) {
			return err
		}
		if err := u.begin(ctx); err != nil {
			return err
		}
	}
	return u.finish(ctx, u.content, u.desc.Size)
}

// begin starts or restarts it.
func (u *upload) begin(ctx context.Context) (err error) {
	u.offset = 0
	u.location, err = u.repository.begin(ctx, u.server, u.desc)
	return err
}

// request creates a request of an upload. Its location may be anywhere, but not leave TLS: one without TLS at
// the registry's own host, as servers behind a proxy return it, is used with TLS.
func (u *upload) request(ctx context.Context, method string) (*http.Request, error) {
	if base := u.server.base; base.Scheme == "https" && u.location.Scheme == "http" && u.location.Hostname() == base.Hostname() {
		u.location.Scheme, u.location.Host = base.Scheme, base.Host
	}
	if u.server.base.Scheme == "https" && u.location.Scheme != "https" {
		return nil, fmt.Errorf("insecure upload location without TLS: %w", errdefs.ErrFailedPrecondition)
	}
	return http.NewRequestWithContext(ctx, method, u.location.String(), nil)
}

// do makes the request. The credential is sent only to the registry's own host.
func (u *upload) do(req *http.Request) (*http.Response, error) {
	if req.URL.Host != u.server.base.Host {
		return (&http.Client{Transport: u.server.plain, CheckRedirect: checkRedirect}).Do(req)
	}
	return u.server.do(req)
}

// finish ends the upload with the blob's digest, and with the remaining bytes if there are any.
func (u *upload) finish(ctx context.Context, content Blob, size int64) error {
	req, err := u.request(ctx, http.MethodPut)
	if err != nil {
		return err
	}
	q := req.URL.Query()
	q.Set("digest", u.desc.Digest.String())
	req.URL.RawQuery = q.Encode()
	req.Header.Set("Content-Type", "application/octet-stream")
	if content != nil {
		req.ContentLength = size
		req.GetBody = func() (io.ReadCloser, error) { return content(0) }
		if req.Body, err = req.GetBody(); err != nil {
			return err
		}
	}
	resp, err := u.do(req)
	if err != nil {
		return err
	}
	if !succeeded(resp) {
		return readError(resp)
	}
	return resp.Body.Close()
}

// chunks sends the blob in chunks, and ends the upload. errNoChunks if the first one is not accepted.
func (u *upload) chunks(ctx context.Context, size int64) error {
	for u.offset < u.desc.Size {
		began := u.offset
		err := u.chunk(ctx, min(size, u.desc.Size-u.offset))
		if err == nil && u.offset <= began {
			err = fmt.Errorf("nothing of a chunk was accepted: %w", errdefs.ErrFailedPrecondition)
		}
		if err == nil {
			u.failures = 0
			continue
		}
		if began == 0 && u.restarts == 0 && refused(err) {
			return errNoChunks
		}
		if err := u.recover(ctx, err); err != nil {
			return err
		}
	}
	return u.finish(ctx, nil, 0)
}

// refused reports whether a retry would get the same response.
func refused(err error) bool {
	switch status := statusOf(err); status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	default:
		return status >= 400 && status < 500 || status == http.StatusNotImplemented
	}
}

// chunk sends n bytes from the registry's offset.
func (u *upload) chunk(ctx context.Context, n int64) error {
	// Not retried automatically: bytes that have arrived must not be sent twice.
	req, err := u.request(context.WithValue(ctx, onceKey{}, true), http.MethodPatch)
	if err != nil {
		return err
	}
	at := u.offset
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("Content-Range", fmt.Sprintf("%d-%d", at, at+n-1))
	req.ContentLength = n
	req.GetBody = func() (io.ReadCloser, error) { // again when a token has expired
		rc, err := u.content(at)
		if err != nil {
			return nil, err
		}
		return limited{io.LimitReader(rc, n), rc}, nil
	}
	if req.Body, err = req.GetBody(); err != nil {
		return err
	}
	resp, err := u.do(req)
	if err != nil {
		return err
	}
	if !succeeded(resp) {
		return readError(resp)
	}
	return u.setOffset(resp, at+n)
}

type limited struct {
	io.Reader
	io.Closer
}

// setOffset reads from a response where the upload continues; otherwise is the offset of the registry if the response
// does not state it in a known form.
func (u *upload) setOffset(resp *http.Response, otherwise int64) error {
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if location, err := resp.Location(); err == nil {
		u.location = location
	}
	u.offset = otherwise
	text := resp.Header.Get("Range")
	if has, ok := uploadRange(text); ok {
		if has > u.desc.Size {
			return fmt.Errorf("invalid range %.64q of %d bytes: %w", text, u.desc.Size, errdefs.ErrFailedPrecondition)
		}
		u.offset = has
	}
	return nil
}

// uploadRange parses how many bytes a registry has of an upload, from "0-LAST". "0-0" is sent for none as well as
// for one; none is assumed, since a chunk at another offset than the end is refused.
func uploadRange(text string) (int64, bool) {
	first, last, ok := strings.Cut(strings.TrimPrefix(text, "bytes="), "-")
	end, err := strconv.ParseInt(last, 10, 64)
	if !ok || first != "0" || err != nil || end < 0 || end == 1<<63-1 {
		return 0, false
	}
	if end == 0 {
		return 0, true
	}
	return end + 1, true
}

// recover finds out, after a delay, the offset of an upload that was interrupted by failure, which it returns
// if that happened too often.
func (u *upload) recover(ctx context.Context, failure error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	status := statusOf(failure)
	if u.failures++; u.failures >= maxFailures || status == http.StatusUnauthorized || status == http.StatusForbidden {
		return failure
	}
	timer := time.NewTimer(u.repository.client.opts.Backoff << (u.failures - 1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	was := u.offset
	err := u.status(ctx)
	if refused(err) && u.restarts < maxRestarts { // unknown upload or offset
		u.restarts++
		return u.begin(ctx)
	}
	if err != nil {
		return errors.Join(failure, err)
	}
	if u.offset > was {
		u.failures = 0
	}
	return nil
}

// status requests the registry's offset.
func (u *upload) status(ctx context.Context) error {
	req, err := u.request(ctx, http.MethodGet)
	if err != nil {
		return err
	}
	resp, err := u.do(req)
	if err != nil {
		return err
	}
	if !succeeded(resp) {
		return readError(resp)
	}
	return u.setOffset(resp, 0)
}

// onceKey marks the context of a request that is not retried automatically.
type onceKey struct{}

// retrying retries requests by its RoundTripper, except those marked with onceKey.
type retrying struct {
	http.RoundTripper
	once http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t retrying) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Context().Value(onceKey{}) != nil {
		return t.once.RoundTrip(req)
	}
	return t.RoundTripper.RoundTrip(req)
}
