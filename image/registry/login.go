package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// Credential is a user's credential for a registry; the zero value is anonymous. It does not print itself.
type Credential struct {
	Username, Password string
	// IdentityToken is used to get tokens, RegistryToken is one.
	IdentityToken, RegistryToken string
	// Authorization replaces all others: the header of that name, sent to the registry itself.
	Authorization string
	// Expires is when it becomes invalid; zero for never.
	Expires time.Time
}

const hidden = "(hidden)"

// String implements fmt.Stringer; a credential is never printed.
func (Credential) String() string { return hidden }

// GoString implements fmt.GoStringer, as String.
func (Credential) GoString() string { return hidden }

// LogValue implements slog.LogValuer, as String.
func (Credential) LogValue() slog.Value { return slog.StringValue(hidden) }

var (
	_ fmt.Stringer   = Credential{}
	_ slog.LogValuer = Credential{}
)

// Access holds the options of one request to a registry. The zero value is anonymous, with everything as configured.
type Access struct {
	Credential Credential
	// Ask, if not nil, returns the credential once the registry requires one by its challenges, the headers
	// WWW-Authenticate. It is called once, and again when the credential expires.
	Ask func(ctx context.Context, host, reference string, challenges []string) (Credential, error)
	// Header is sent to the registry itself, in addition to the configured ones.
	Header http.Header
	// ConfigPath, if not "", replaces that of Options.
	ConfigPath string
	// Scheme is http or https for a registry whose configuration names none; "" detects it.
	Scheme string
	// Trace reports the requests; nil for none.
	Trace *Trace
}

// errAuthorize makes a request be repeated, now that there is a header for it; if there was one, the
// registry refuses it.
var errAuthorize = errors.New("credential header refused")

// errNotBasic is returned for a token if a registry requires a password.
var errNotBasic = errors.New("got a token, want a name and a password")

// errAsk is returned if the client did not provide a credential.
var errAsk = errors.New("ask the client for a credential")

// login is the credential of one Repository. A nil one is for a mirror: anonymous.
type login struct {
	access    Access
	reference string

	mu         sync.Mutex
	challenges []string
	basic      bool // the answered challenge requires a password
	asked      bool
	credent    Credential
}

// challenged records the registry's challenges, and the one that is answered.
func (l *login) challenged(headers []string, answered string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.challenges = headers
	l.basic = strings.HasPrefix(strings.ToLower(answered), "basic")
}

// authorization returns the header to send, or "".
func (l *login) authorization() string {
	if l == nil {
		return ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.credent.Authorization
}

// credential returns the credential; it is called when the host requires one.
func (l *login) credential(ctx context.Context, host string) (auth.Credential, error) {
	if l == nil {
		return auth.EmptyCredential, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.access.Ask == nil {
		l.credent = l.access.Credential
	} else if !l.asked || l.expiredLocked() {
		c, err := l.access.Ask(ctx, host, l.reference, l.challenges)
		if err != nil {
			return auth.EmptyCredential, fmt.Errorf("%w for %s: %w", errAsk, host, err)
		}
		l.credent, l.asked = c, true
	}
	c := l.credent
	if c.Authorization != "" {
		return auth.EmptyCredential, errAuthorize
	}
	token := c.IdentityToken != "" || c.RegistryToken != ""
	if token && (c.Username == "" || c.Password == "") && l.basic {
		return auth.EmptyCredential, errNotBasic
	}
	return auth.Credential{
		Username: c.Username, Password: c.Password,
		RefreshToken: c.IdentityToken, AccessToken: c.RegistryToken,
	}, nil
}

func (l *login) expiredLocked() bool {
	return !l.credent.Expires.IsZero() && time.Now().After(l.credent.Expires)
}

// do makes a request as the user. One that turned out to need a header is repeated with it, once.
func (s *server) do(req *http.Request) (*http.Response, error) {
	resp, err := s.auth.Do(req)
	if !errors.Is(err, errAuthorize) {
		return resp, err
	}
	if req.GetBody != nil {
		if req.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	return s.auth.Do(req)
}

// join returns both; more takes precedence.
func join(configured, more http.Header) http.Header {
	out := configured.Clone()
	if out == nil {
		out = make(http.Header)
	}
	maps.Copy(out, more)
	return out
}
