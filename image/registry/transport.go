package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"oras.land/oras-go/v2/registry/remote/retry"
)

// The time-outs of a connection.
const (
	dialTimeout      = 30 * time.Second
	handshakeTimeout = 15 * time.Second
	answerTimeout    = 60 * time.Second
	idleConnTimeout  = 30 * time.Second
	keepAlive        = 30 * time.Second
)

// newTransport returns the transport for one server. The caller closes its idle connections.
func newTransport(h *host) (*http.Transport, error) {
	config, err := tlsConfig(h)
	if err != nil {
		return nil, err
	}
	dial := h.dial
	if dial == 0 {
		dial = dialTimeout
	}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dial, KeepAlive: keepAlive}).DialContext,
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   handshakeTimeout,
		ResponseHeaderTimeout: answerTimeout,
		IdleConnTimeout:       idleConnTimeout,
		MaxIdleConnsPerHost:   16,
		ForceAttemptHTTP2:     true,
		// The bytes of a layer must not be decompressed in transit.
		DisableCompression: true,
	}, nil
}

func tlsConfig(h *host) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: h.skipVerify} // configured by the administrator
	if len(h.ca) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		for _, path := range h.ca {
			raw, err := os.ReadFile(path)
			if err != nil {
				return nil, fmt.Errorf("read certificate of an authority: %w: %w", err, errdefs.ErrFailedPrecondition)
			}
			if !pool.AppendCertsFromPEM(raw) {
				return nil, fmt.Errorf("certificate of an authority %s: no certificate in PEM: %w", path, errdefs.ErrInvalidArgument)
			}
		}
		config.RootCAs = pool
	}
	for _, p := range h.clients {
		pair, err := tls.LoadX509KeyPair(p.cert, p.key)
		if err != nil {
			return nil, fmt.Errorf("load client certificate %s: %w: %w", p.cert, err, errdefs.ErrFailedPrecondition)
		}
		config.Certificates = append(config.Certificates, pair)
	}
	return config, nil
}

// headers adds the configured headers to requests to the server they are configured for. It is below
// the layers that follow redirects and fetch tokens, so that no other server gets them.
type headers struct {
	http.RoundTripper
	base   *url.URL
	header http.Header
	login  *login // nil for a mirror
}

func (t headers) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != t.base.Scheme || req.URL.Host != t.base.Host {
		resp, err := t.RoundTripper.RoundTrip(req)
		if err == nil {
			keepMethod(resp)
		}
		return resp, err
	}
	authorization := t.login.authorization()
	if len(t.header) > 0 || authorization != "" {
		req = req.Clone(req.Context())
	}
	for name, values := range t.header {
		req.Header[name] = values
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := t.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusUnauthorized {
		all := resp.Header.Values("Www-Authenticate")
		oneChallenge(resp)
		t.login.challenged(all, resp.Header.Get("Www-Authenticate"))
	}
	keepMethod(resp)
	return resp, nil
}

// keepMethod replaces a redirect of a request other than a read by one that keeps its method and body, as
// registries mean it: for the statuses 301 and 302 the HTTP client would turn an upload into a GET.
func keepMethod(resp *http.Response) {
	if resp.Request == nil || resp.Request.Method == http.MethodGet || resp.Request.Method == http.MethodHead {
		return
	}
	switch resp.StatusCode {
	case http.StatusMovedPermanently:
		resp.StatusCode = http.StatusPermanentRedirect
	case http.StatusFound:
		resp.StatusCode = http.StatusTemporaryRedirect
	}
}

// retryPolicy returns the policy of what to retry, and when.
func retryPolicy(first, most time.Duration, tries int) func() retry.Policy {
	p := &retry.GenericPolicy{
		Retryable: retryable,
		Backoff:   retry.ExponentialBackoff(first, 2, 0.1), // it honours Retry-After
		MinWait:   first, MaxWait: most, MaxRetry: tries,
	}
	return func() retry.Policy { return p }
}

// retryable reports whether a retry may succeed.
func retryable(resp *http.Response, err error) (bool, error) {
	if err != nil {
		var timeout net.Error
		return errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, syscall.ECONNRESET) ||
			errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF), nil
	}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true, nil
	}
	return false, nil
}

// checkRedirect refuses chains that are too long or leave TLS. The client that sends credentials does not
// send them to another host.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("redirects more than %d times", maxRedirects)
	}
	if len(via) > 0 && via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("insecure redirect from TLS to %s", req.URL.Scheme)
	}
	if len(via) > 0 && !isThisMachine(via[0].URL) && isThisMachine(req.URL) {
		return errors.New("insecure redirect to this machine")
	}
	return nil
}

// errStalled is the error of a transfer that received no data for too long.
var errStalled = errors.New("no data for too long")

// stalling ends a body that receives no data for a while.
type stalling struct {
	io.ReadCloser
	cancel  context.CancelFunc // of the request that the body belongs to
	idle    time.Duration
	timer   *time.Timer
	stalled atomic.Bool
}

func newStalling(cancel context.CancelFunc, body io.ReadCloser, idle time.Duration) *stalling {
	s := &stalling{ReadCloser: body, cancel: cancel, idle: idle}
	s.timer = time.AfterFunc(idle, func() {
		s.stalled.Store(true)
		cancel()
	})
	return s
}

func (s *stalling) Read(p []byte) (int, error) {
	s.timer.Reset(s.idle)
	n, err := s.ReadCloser.Read(p)
	s.timer.Stop()
	if err != nil && s.stalled.Load() {
		err = errStalled
	}
	return n, err
}

func (s *stalling) Close() error {
	s.timer.Stop()
	err := s.ReadCloser.Close()
	s.cancel()
	return err
}

// isTLSError reports whether a connection failed because of TLS.
func isTLSError(err error) bool {
	var verify *tls.CertificateVerificationError
	return errors.As(err, &verify) || strings.Contains(err.Error(), "tls: ")
}

// isTLSRefusal reports whether the peer ended TLS, which its certificate does not cause.
func isTLSRefusal(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}
