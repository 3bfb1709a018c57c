package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// probeTimeout bounds how long a server on loopback may take to begin TLS, and to answer without it.
const probeTimeout = 5 * time.Second

// ready detects whether a server speaks TLS if that is not configured. Only one on loopback may not: it is
// contacted without TLS if a handshake fails for any reason except a certificate.
func (s *server) ready(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.probed {
		return nil
	}
	err := s.answers(ctx, "https")
	if err != nil && notTLS(err) && ctx.Err() == nil && s.answers(ctx, "http") == nil {
		s.base.Scheme, err = "http", nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	s.probed = true
	return nil
}

// answers sends one request for the API's root; any response will do.
func (s *server) answers(ctx context.Context, scheme string) error {
	timeout := s.probeTimeout
	if timeout == 0 {
		timeout = probeTimeout
	}
	// The cause distinguishes the end of the probe from that of the request.
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errSilent)
	defer cancel()
	at := url.URL{Scheme: scheme, Host: s.base.Host, Path: s.base.Path + "/"}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return err
	}
	resp, err := s.once.RoundTrip(req)
	if err != nil {
		if errors.Is(context.Cause(ctx), errSilent) {
			return fmt.Errorf("%s: %w", scheme, errSilent)
		}
		return err
	}
	return resp.Body.Close()
}

// errSilent is returned for a server that accepts a connection and does not respond.
var errSilent = errors.New("no response in time")

// notTLS reports whether a failed request may be due to a server without TLS: not if no connection could
// be made, nor if TLS itself reports the reason.
func notTLS(err error) bool {
	var verify *tls.CertificateVerificationError
	var alert tls.AlertError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return false
	case errors.As(err, &verify), errors.As(err, &alert), isTLSRefusal(err):
		return false
	}
	return true
}
