package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// isDocument reports whether content is requested as a manifest.
func isDocument(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, dockerIndex, dockerManifest:
		return true
	}
	return false
}

// Fetch returns the bytes of a blob or document from offset on, as many as its descriptor states or an
// error; the caller verifies them. An interrupted transfer is resumed, at the same server or the next.
// Large blobs are fetched by several requests (Ranges). The caller closes it.
func (r *Repository) Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if isDocument(desc.MediaType) && desc.Size > maxManifest {
		return nil, fmt.Errorf("fetch %s of %s: %w", desc.Digest, r.ref, tooLarge())
	}
	ctx = r.pullScope(ctx)
	if offset == desc.Size {
		return r.body(ctx, desc, offset), nil
	}
	release, err := r.slot(ctx)
	if err != nil {
		return nil, err
	}
	var rc io.ReadCloser
	if r.byRanges(desc.Size - offset) {
		rc, err = r.fetchRanges(ctx, desc, offset, release)
	} else {
		rc, err = r.fetchWhole(ctx, desc, offset, release)
	}
	if err != nil {
		release()
	}
	return rc, err
}

// fetchWhole fetches by one request, in a slot which it releases at its end.
func (r *Repository) fetchWhole(ctx context.Context, desc ocispec.Descriptor, offset int64, release func()) (io.ReadCloser, error) {
	b := r.body(ctx, desc, offset)
	var err error
	if b.current, err = b.open(offset); err != nil {
		return nil, err
	}
	return slotted{b, release}, nil
}

// body returns a transfer to the end of a blob, which has not started.
func (r *Repository) body(ctx context.Context, desc ocispec.Descriptor, offset int64) *body {
	return &body{
		size: desc.Size, offset: offset, began: offset, backoff: r.client.opts.Backoff, done: ctx.Done(),
		what: fmt.Sprintf("fetch %s of %s", desc.Digest, r.ref), host: r.ref.Host,
		open: func(offset int64) (io.ReadCloser, error) {
			rc, _, err := r.open(ctx, desc, span{offset, 0})
			return rc, err
		},
		ended: func() error { return ctx.Err() },
	}
}

// span is the requested part of a blob: from begin to before end, or to the blob's end if that is 0.
type span struct{ begin, end int64 }

// open tries the servers in turn, and last the URLs that the layer itself names. partial reports that the
// response ends where the span does.
func (r *Repository) open(ctx context.Context, desc ocispec.Descriptor, at span) (rc io.ReadCloser, partial bool, err error) {
	path := "/" + r.ref.Repository + blobsPrefix + desc.Digest.String()
	header := http.Header{}
	if isDocument(desc.MediaType) {
		path = "/" + r.ref.Repository + manifestsPrefix + desc.Digest.String()
		header.Set("Accept", desc.MediaType)
	}
	err = r.each(ctx, canPull, func(s *server) error {
		rc, partial, err = r.openAt(ctx, s, path, header, desc, at)
		if err != nil {
			return fail("fetch", desc.Digest.String()+" of "+r.ref.String(), &s.host, err)
		}
		return nil
	})
	if errdefs.IsNotFound(err) && len(desc.URLs) > 0 {
		rc, err = r.openForeign(ctx, desc, at.begin, err)
		return rc, false, err
	}
	return rc, partial, err
}

// openAt requests a span from one server; the blob from its beginning if the response to the request for a part
// is not usable.
func (r *Repository) openAt(ctx context.Context, s *server, path string, header http.Header, desc ocispec.Descriptor, at span) (io.ReadCloser, bool, error) {
	rc, partial, err := r.openSpan(ctx, s, path, header, desc, at)
	if at.begin == 0 && at.end == 0 || !errors.Is(err, errOtherRange) && statusOf(err) != http.StatusRequestedRangeNotSatisfiable {
		return rc, partial, err
	}
	all, _, aerr := r.openSpan(ctx, s, path, header, desc, span{})
	if aerr != nil {
		return nil, false, err
	}
	if _, aerr := io.CopyN(io.Discard, all, at.begin); aerr != nil {
		return nil, false, errors.Join(err, all.Close())
	}
	return all, false, nil
}

func (r *Repository) openSpan(ctx context.Context, s *server, path string, header http.Header, desc ocispec.Descriptor, at span) (io.ReadCloser, bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	req, err := s.request(ctx, http.MethodGet, path, header)
	if err == nil {
		var resp *http.Response
		at.ask(req)
		if resp, err = s.do(req); err == nil {
			partial := at.end > 0 && resp.StatusCode == http.StatusPartialContent
			var rc io.ReadCloser
			if rc, err = bodyOf(resp, desc.Size, at); err == nil {
				return newStalling(cancel, rc, r.client.opts.Idle), partial, nil
			}
		}
	}
	cancel()
	return nil, false, err
}

// ask sets the span in a request.
func (at span) ask(req *http.Request) {
	switch {
	case at.end > 0:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", at.begin, at.end-1))
	case at.begin > 0:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", at.begin))
	}
}

// errOtherRange is returned for a response that does not match the requested range.
var errOtherRange = fmt.Errorf("response with another range than requested: %w", errdefs.ErrFailedPrecondition)

// bodyOf returns the body of a response from the beginning of the span, and closes it otherwise.
func bodyOf(resp *http.Response, size int64, at span) (io.ReadCloser, error) {
	begins := int64(0)
	switch {
	case resp.StatusCode == http.StatusPartialContent:
		var total int64
		var ok bool
		begins, total, ok = contentRange(resp.Header.Get("Content-Range"))
		if !ok && resp.Header.Get("Content-Range") == "" && resp.ContentLength == at.length(size) {
			begins, total, ok = at.begin, -1, true // the length is that of the span
		}
		if !ok || begins > at.begin {
			_ = resp.Body.Close()
			return nil, errOtherRange
		}
		if total >= 0 && total != size {
			_ = resp.Body.Close()
			return nil, wrongSize(total, size)
		}
	case succeeded(resp):
		if resp.ContentLength >= 0 && resp.ContentLength != size {
			_ = resp.Body.Close()
			return nil, wrongSize(resp.ContentLength, size)
		}
	default:
		return nil, readError(resp)
	}
	if skip := at.begin - begins; skip > 0 { // a server without ranges
		if _, err := io.CopyN(io.Discard, resp.Body, skip); err != nil {
			_ = resp.Body.Close()
			return nil, fmt.Errorf("%w: %w", errShort, err)
		}
	}
	return resp.Body, nil
}

// length returns the bytes of the span in a blob of that size.
func (at span) length(size int64) int64 {
	if at.end > 0 {
		return at.end - at.begin
	}
	return size - at.begin
}

func wrongSize(got, want int64) error {
	return fmt.Errorf("got %d bytes, want %d by the descriptor: the registry is wrong about its content: %w", got, want, errdefs.ErrFailedPrecondition)
}

// contentRange parses "bytes 5-9/10"; the total is -1 for "*".
func contentRange(text string) (begins, total int64, ok bool) {
	rest, ok := strings.CutPrefix(text, "bytes ")
	if !ok {
		return 0, 0, false
	}
	span, all, ok := strings.Cut(rest, "/")
	first, _, dash := strings.Cut(span, "-")
	if !ok || !dash {
		return 0, 0, false
	}
	begins, err := strconv.ParseInt(first, 10, 64)
	if err != nil || begins < 0 {
		return 0, 0, false
	}
	if all == "*" {
		return begins, -1, true
	}
	total, err = strconv.ParseInt(all, 10, 64)
	return begins, total, err == nil && total >= 0
}

const (
	// maxFailures bounds consecutive interruptions that brought less than goodRun.
	maxFailures = 5
	goodRun     = 64 << 10
)

// body is a transfer that is resumed after an interruption.
type body struct {
	open    func(offset int64) (io.ReadCloser, error)
	ended   func() error // the error that the request ended with, nil while it runs
	done    <-chan struct{}
	backoff time.Duration
	what    string
	host    string

	current      io.ReadCloser // nil after an interruption
	size, offset int64
	began        int64 // offset where current began
	failures     int
}

func (b *body) Read(p []byte) (int, error) {
	for b.offset < b.size {
		if b.current == nil {
			if err := b.reopen(); err != nil {
				return 0, err
			}
		}
		n, err := b.current.Read(p[:min(int64(len(p)), b.size-b.offset)])
		b.offset += int64(n)
		if err != nil && b.offset < b.size {
			if berr := b.broke(err); berr != nil {
				return n, berr
			}
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, b.surplus()
}

// surplus returns io.EOF, or an error if there is more data than expected.
func (b *body) surplus() error {
	if b.current == nil {
		return io.EOF
	}
	var one [1]byte
	if n, _ := b.current.Read(one[:]); n > 0 {
		return fmt.Errorf("%s: %s sends more than the %d bytes of its descriptor: the registry is wrong about its content: %w", b.what, b.host, b.size, errdefs.ErrFailedPrecondition)
	}
	return io.EOF
}

// broke drops an interrupted transfer, and returns an error after too many attempts.
func (b *body) broke(err error) error {
	_ = b.current.Close()
	b.current = nil
	if ended := b.ended(); ended != nil {
		return fmt.Errorf("%s: %w", b.what, ended)
	}
	if b.offset-b.began >= goodRun {
		b.failures = 0
	}
	b.failures++
	if b.failures < maxFailures {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = errShort
	}
	text := fmt.Sprintf("%s: %s transfer breaks off repeatedly after %d of %d bytes: %s", b.what, b.host, b.offset, b.size, redact(err))
	return &failure{text: text, class: errdefs.ErrUnavailable}
}

// reopen resumes the interrupted transfer, after a delay.
func (b *body) reopen() error {
	timer := time.NewTimer(b.backoff << (b.failures - 1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-b.done:
		return fmt.Errorf("%s: %w", b.what, b.ended())
	}
	rc, err := b.open(b.offset)
	if err != nil {
		return err
	}
	b.current, b.began = rc, b.offset
	return nil
}

func (b *body) Close() error {
	if b.current == nil {
		return nil
	}
	return b.current.Close()
}
