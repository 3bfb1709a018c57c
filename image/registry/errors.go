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
)

// answerError is an answer that is an error.
type answerError struct {
	status int
	text   string // what the registry says of it, bounded
}

func (e *answerError) Error() string {
	s := fmt.Sprintf("it answers %d %s", e.status, http.StatusText(e.status))
	if e.text != "" {
		s += " (" + e.text + ")"
	}
	return s
}

// readError makes an error of an answer and closes it.
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

// printable cuts a stranger's text down to what can be shown in a line: without what a terminal would
// obey, and with at most so many bytes.
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

// statusOf returns the status that an error is about, or 0.
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

// classify says what to do about an error, and gives it its class.
func classify(err error) (advice string, class error) {
	switch status := statusOf(err); {
	case errors.Is(err, context.Canceled):
		return "", context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return "it is too slow or not reachable; try again", errdefs.ErrUnavailable
	case errors.Is(err, errAsk):
		return "it has to answer on its stream for credentials", errdefs.ErrUnauthenticated
	case status == http.StatusUnauthorized:
		return "log in with --user or docker login, or check the name: registries say this of what is not there as well", errdefs.ErrUnauthenticated
	case status == http.StatusForbidden:
		return "this user, or an anonymous one, may not do that there", errdefs.ErrPermissionDenied
	case status == http.StatusNotFound:
		return "check name and tag", errdefs.ErrNotFound
	case status == http.StatusTooManyRequests:
		return "it limits how much is asked of it; wait, or log in", errdefs.ErrResourceExhausted
	case status == http.StatusRequestedRangeNotSatisfiable:
		return "it has fewer bytes than it should; try again without what is here of it", errdefs.ErrFailedPrecondition
	case status >= http.StatusInternalServerError:
		return "it has a problem of its own; try again later", errdefs.ErrUnavailable
	case status != 0:
		return "it refuses what is asked", errdefs.ErrFailedPrecondition
	case hasClass(err):
		return "", nil
	case errors.Is(err, http.ErrSchemeMismatch):
		return "if it is meant to speak plain HTTP, name it with http:// in its hosts.toml", errdefs.ErrUnavailable
	case isTLSRefusal(err):
		return "it refuses to speak TLS with us; if it wants a client's certificate, name one as client in its hosts.toml", errdefs.ErrUnavailable
	case isTLSError(err):
		return "name its authority as ca in its hosts.toml, or set skip_verify there", errdefs.ErrUnavailable
	default:
		return "is its address right, and is it reachable from this host?", errdefs.ErrUnavailable
	}
}

func hasClass(err error) bool {
	return errdefs.IsInvalidArgument(err) || errdefs.IsFailedPrecondition(err) || errdefs.IsNotImplemented(err) || errdefs.IsNotFound(err)
}

// failure is an error about a server, without what must not be shown.
type failure struct {
	text  string
	class error
}

func (e *failure) Error() string { return e.text }
func (e *failure) Unwrap() error { return e.class }

// fail says what was done with what at which server, and what to do about it.
func fail(verb, what string, h *host, err error) error {
	advice, class := classify(err)
	if class == nil {
		return fmt.Errorf("%s %s at %s: %w", verb, what, h.base.Host, err)
	}
	text := fmt.Sprintf("%s %s at %s: %s", verb, what, h.base.Host, redact(err))
	if advice != "" {
		text += ": " + advice
	}
	return &failure{text: text, class: class}
}

// redact words an error without the queries of URLs, which may be signed.
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

// urlsOf returns the URLs that the errors of a chain name.
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
