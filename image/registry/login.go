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

// Credential is what a user shows to a registry; the zero value is nobody. It does not print itself.
type Credential struct {
	Username, Password string
	// IdentityToken is shown to get tokens, RegistryToken is one.
	IdentityToken, RegistryToken string
	// Authorization takes the place of all others: the header of that name, sent to the registry itself.
	Authorization string
	// Expires is when it may not be used any more; zero for never.
	Expires time.Time
}

const hidden = "(hidden)"

func (Credential) String() string       { return hidden }
func (Credential) GoString() string     { return hidden }
func (Credential) LogValue() slog.Value { return slog.StringValue(hidden) }

var (
	_ fmt.Stringer   = Credential{}
	_ slog.LogValuer = Credential{}
)

// Access is how one request gets at a registry. The zero value is nobody, with everything as configured.
type Access struct {
	Credential Credential
	// Ask, where it is not nil, is asked for the credential once the registry wants one, which it does by
	// the challenges, its headers WWW-Authenticate. It is asked once, and again when the answer expires.
	Ask func(ctx context.Context, host, reference string, challenges []string) (Credential, error)
	// Header is sent to the registry itself, beside what is configured.
	Header http.Header
	// ConfigPath takes the place of that in Options; "" does not.
	ConfigPath string
	// Scheme is http or https for a registry whose configuration names none; "" has it found out.
	Scheme string
	// Trace reports the requests; nil: they are not.
	Trace *Trace
}

// errAuthorize has a request made again, now that there is a header for it; where there was one, the
// registry does not like it.
var errAuthorize = errors.New("the credential is a header, and refused")

// errNotBasic is for a token where a registry wants no token.
var errNotBasic = errors.New("it wants a name and a password, and was given a token")

// errAsk is for a client that was asked and did not answer.
var errAsk = errors.New("ask the client for a credential")

// login is the credential of one Repository. A nil one is a mirror's: it is nobody.
type login struct {
	access    Access
	reference string

	mu         sync.Mutex
	challenges []string
	basic      bool // the challenge that is answered wants a password
	asked      bool
	credent    Credential
}

// challenged notes what the registry says it wants, and which of it is answered.
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

// credential is asked for when the host wants one.
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

// do makes a request as the user. One that turned out to need a header is made again with it, once.
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

// join returns both; what more says counts.
func join(configured, more http.Header) http.Header {
	out := configured.Clone()
	if out == nil {
		out = make(http.Header)
	}
	maps.Copy(out, more)
	return out
}
