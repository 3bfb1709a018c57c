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

// Blob opens what is to be sent, from an offset on.
type Blob = func(offset int64) (io.ReadCloser, error)

// upload is a blob on its way to a registry.
type upload struct {
	repository *Repository
	server     *server
	desc       ocispec.Descriptor
	content    Blob
	location   *url.URL // where it goes on

	offset int64 // what the registry has
	poor   int   // how often in a row it broke off without having brought anything
	anew   int   // how often it was begun anew, because the registry knew no more of it
}

// maxAnew bounds how often a blob is sent from its beginning. Registries that drop an upload when its
// connection breaks make that necessary (docker-registry does).
const maxAnew = 3

// errNoChunks is for a registry that takes blobs in one piece only.
var errNoChunks = errors.New("it takes no chunks")

// send sends the blob: in one request where it is small, else by chunks, so that one that is cut goes on
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

// begin begins it anew.
func (u *upload) begin(ctx context.Context) (err error) {
	u.offset = 0
	u.location, err = u.repository.begin(ctx, u.server, u.desc)
	return err
}

// request makes a request of an upload. Its location may be anywhere, but not out of TLS: one without TLS at
// the registry's own host, as servers behind a proxy name it, is used with TLS.
func (u *upload) request(ctx context.Context, method string) (*http.Request, error) {
	if base := u.server.base; base.Scheme == "https" && u.location.Scheme == "http" && u.location.Hostname() == base.Hostname() {
		u.location.Scheme, u.location.Host = base.Scheme, base.Host
	}
	if u.server.base.Scheme == "https" && u.location.Scheme != "https" {
		return nil, fmt.Errorf("it has uploads go out of TLS, which is not safe: %w", errdefs.ErrFailedPrecondition)
	}
	return http.NewRequestWithContext(ctx, method, u.location.String(), nil)
}

// do makes the request. The credential goes along only to the registry's own host.
func (u *upload) do(req *http.Request) (*http.Response, error) {
	if req.URL.Host != u.server.base.Host {
		return (&http.Client{Transport: u.server.plain, CheckRedirect: checkRedirect}).Do(req)
	}
	return u.server.do(req)
}

// finish ends the upload with the blob's digest, and with bytes where there are any.
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

// chunks sends the blob by chunks, and ends the upload. errNoChunks where the first one is not taken.
func (u *upload) chunks(ctx context.Context, size int64) error {
	for u.offset < u.desc.Size {
		began := u.offset
		err := u.chunk(ctx, min(size, u.desc.Size-u.offset))
		if err == nil && u.offset <= began {
			err = fmt.Errorf("it takes nothing of a chunk: %w", errdefs.ErrFailedPrecondition)
		}
		if err == nil {
			u.poor = 0
			continue
		}
		if began == 0 && u.anew == 0 && refused(err) {
			return errNoChunks
		}
		if err := u.recover(ctx, err); err != nil {
			return err
		}
	}
	return u.finish(ctx, nil, 0)
}

// refused tells of an answer that will be the same next time.
func refused(err error) bool {
	switch status := statusOf(err); status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	default:
		return status >= 400 && status < 500 || status == http.StatusNotImplemented
	}
}

// chunk sends n bytes from where the registry is.
func (u *upload) chunk(ctx context.Context, n int64) error {
	// Not again by itself when it breaks: what has arrived of it must not be sent twice.
	req, err := u.request(context.WithValue(ctx, onceKey{}, true), http.MethodPatch)
	if err != nil {
		return err
	}
	at := u.offset
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("Content-Range", fmt.Sprintf("%d-%d", at, at+n-1))
	req.ContentLength = n
	req.GetBody = func() (io.ReadCloser, error) { // once more when a token has run out
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
	return u.stands(resp, at+n)
}

type limited struct {
	io.Reader
	io.Closer
}

// stands reads from an answer where the upload continues; otherwise is what the registry has if it does not
// say so in a form that is known.
func (u *upload) stands(resp *http.Response, otherwise int64) error {
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
			return fmt.Errorf("it says that it has %.64q of %d bytes: %w", text, u.desc.Size, errdefs.ErrFailedPrecondition)
		}
		u.offset = has
	}
	return nil
}

// uploadRange reads how many bytes a registry has of an upload, from "0-LAST". It says "0-0" of none as of
// one; none is what leads on, since a chunk at another place than its end is refused.
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

// recover finds out, after a while, where an upload stands that broke off by failure, which it returns
// where that happened too often.
func (u *upload) recover(ctx context.Context, failure error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	status := statusOf(failure)
	if u.poor++; u.poor >= poorTries || status == http.StatusUnauthorized || status == http.StatusForbidden {
		return failure
	}
	timer := time.NewTimer(u.repository.client.opts.Backoff << (u.poor - 1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	was := u.offset
	err := u.status(ctx)
	if refused(err) && u.anew < maxAnew { // it does not know the upload, or cannot say where it is
		u.anew++
		return u.begin(ctx)
	}
	if err != nil {
		return errors.Join(failure, err)
	}
	if u.offset > was {
		u.poor = 0
	}
	return nil
}

// status asks what the registry has.
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
	return u.stands(resp, 0)
}

// onceKey marks the context of a request that is not made again by itself.
type onceKey struct{}

// retrying makes requests again by its RoundTripper, but for those marked with onceKey.
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
