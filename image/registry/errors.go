package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/containerd/errdefs"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/cleatproject/cleat/proto/reason"
)

// answerError is an error response.
type answerError struct {
	status int
	text   string // the registry's message, bounded
}

func (e *answerError) Error() string {
	s := fmt.Sprintf("status %d %s", e.status, http.StatusText(e.status))
	if e.text != "" {
		s += " (" + e.text + ")"
	}
	return s
}

// readError converts an error response to an error and closes it.
func readError(resp *http.Response) error {
	defer func() { _ = resp.Body.Close() }()
	e := &answerError{status: resp.StatusCode}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	var doc struct {
		Errors []errcode.Error `json:"errors"`
	}
	if err == nil && json.Unmarshal(raw, &doc) == nil && len(doc.Errors) > 0 {
		e.text = printable(strings.TrimSpace(doc.Errors[0].Code+" "+doc.Errors[0].Message), 200)
	}
	return e
}

// printable reduces untrusted text to one printable line: without control characters of terminals,
// and with at most so many bytes.
func printable(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

// statusOf returns the HTTP status of an error, or 0.
func statusOf(err error) int {
	var answer *answerError
	var token *errcode.ErrorResponse
	switch {
	case errors.As(err, &answer):
		return answer.status
	case errors.As(err, &token):
		return token.StatusCode
	case errors.Is(err, auth.ErrBasicCredentialNotFound), errors.Is(err, errAuthorize), errors.Is(err, errNotBasic):
		return http.StatusUnauthorized
	}
	return 0
}

// classify returns the class of an error about a server, with a reason if there is one. It is nil for an error
// that already has a class.
func classify(err error) error {
	switch status := statusOf(err); {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return reason.RegistryUnreachable
	case errors.Is(err, errAsk), status == http.StatusUnauthorized:
		return reason.RegistryUnauthorized
	case status == http.StatusForbidden:
		return reason.RegistryDenied
	case status == http.StatusNotFound:
		return reason.RegistryNotFound
	case status == http.StatusTooManyRequests:
		return reason.RegistryTooMany
	case status >= http.StatusInternalServerError:
		return reason.RegistryFailed
	case status != 0:
		return errdefs.ErrFailedPrecondition
	case hasClass(err):
		return nil
	case errors.Is(err, http.ErrSchemeMismatch), isTLSRefusal(err), isTLSError(err):
		return reason.RegistryTLS
	default:
		return reason.RegistryUnreachable
	}
}

func hasClass(err error) bool {
	return errdefs.IsInvalidArgument(err) || errdefs.IsFailedPrecondition(err) || errdefs.IsNotImplemented(err) || errdefs.IsNotFound(err)
}

// failure is an error about a server, without secrets.
type failure struct {
	text  string
	class error
}

func (e *failure) Error() string { return e.text }
func (e *failure) Unwrap() error { return e.class }

// fail returns an error that names the action, the object and the server.
func fail(verb, what string, h *host, err error) error {
	class := classify(err)
	if class == nil {
		return fmt.Errorf("%s %s at %s: %w", verb, what, h.base.Host, err)
	}
	return &failure{text: fmt.Sprintf("%s %s at %s: %s", verb, what, h.base.Host, redact(err)), class: class}
}

// redact formats an error without the queries of URLs, which may be signed.
func redact(err error) string {
	text := err.Error()
	for _, u := range urlsOf(err) {
		if parsed, perr := url.Parse(u); perr == nil && (parsed.RawQuery != "" || parsed.User != nil) {
			bare := url.URL{Scheme: parsed.Scheme, Host: parsed.Host, Path: parsed.Path}
			text = strings.ReplaceAll(text, u, bare.String())
		}
	}
	return printable(text, 1000)
}

// urlsOf returns the URLs in the errors of a chain.
func urlsOf(err error) []string {
	var out []string
	var ue *url.Error
	if errors.As(err, &ue) {
		out = append(append(out, ue.URL), urlsOf(ue.Err)...)
	}
	var te *errcode.ErrorResponse
	if errors.As(err, &te) && te.URL != nil {
		out = append(out, te.URL.String())
	}
	return out
}
