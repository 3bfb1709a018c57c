package registry

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/cleatproject/cleat/proto/reason"
)

// Options of a Client. The zero value contacts registries directly, without configuration.
type Options struct {
	// ConfigPath is the directory with a folder for each registry; "" for none.
	ConfigPath string
	// UserAgent names the program; "" for cleat.
	UserAgent string
	// Backoff is the delay before the first retry of a request; it doubles with each further one.
	// 0 for a quarter of a second.
	Backoff time.Duration
	// Idle is how long a transfer may receive no data; 0 for a minute.
	Idle time.Duration
	// Probe is how long a server on loopback may take to begin TLS before plain HTTP is tried; 0 for 5 s.
	Probe time.Duration
	// Chunk is the size in bytes above which a blob is uploaded in chunks of that size; 0 for never.
	Chunk int64
	// Ranges sets when a blob is fetched by several requests.
	Ranges Ranges
	// Log, if not nil, receives warnings about the configuration.
	Log *slog.Logger
}

const (
	defaultBackoff = 250 * time.Millisecond
	defaultIdle    = time.Minute
	// maxWait bounds the delay that a registry may ask for, and tries the number of attempts.
	maxWait  = 30 * time.Second
	maxTries = 4
)

// Client creates Repositories. It keeps no state between them, so that a credential is never used for another request.
type Client struct{ opts Options }

// New returns a Client.
func New(opts Options) *Client {
	if opts.UserAgent == "" {
		opts.UserAgent = "cleat"
	}
	if opts.Backoff == 0 {
		opts.Backoff = defaultBackoff
	}
	if opts.Idle == 0 {
		opts.Idle = defaultIdle
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{opts}
}

// Repository is a repository of a registry for one request. It has to be closed. Its methods may be called
// concurrently.
type Repository struct {
	ref     Reference
	servers []*server
	client  *Client
	config  string // the directory of the configuration
	slots   chan struct{}
}

// server is a host with the connections to it.
type server struct {
	host
	auth      *auth.Client
	transport *http.Transport
	once      http.RoundTripper // without retries and credentials
	plain     http.RoundTripper // with retries, without credentials
	login     *login            // nil for a mirror

	probeTimeout time.Duration // 0 for the default

	mu     sync.Mutex
	probed bool
}

// Repository opens the repository of a reference, with mirrors and settings as configured. It sends
// no request.
func (c *Client) Repository(ref Reference, access Access) (*Repository, error) {
	config := c.opts.ConfigPath
	if access.ConfigPath != "" {
		config = access.ConfigPath
	}
	hosts, err := c.hostsFor(config, ref.Host, access.Scheme)
	if err != nil {
		return nil, err
	}
	r := &Repository{ref: ref, client: c, config: config}
	login := &login{access: access, reference: ref.String()}
	for i := range hosts {
		if hosts[i].own {
			hosts[i].header = join(hosts[i].header, access.Header)
		}
		s, err := c.server(hosts[i], login)
		if err != nil {
			r.Close()
			return nil, fmt.Errorf("configuration of registry %s: host %s: %w", ref.Host, hosts[i].base.Host, reason.Default(err, reason.RegistryConfig))
		}
		r.servers = append(r.servers, s)
	}
	return r, nil
}

func (c *Client) server(h host, login *login) (*server, error) {
	transport, err := newTransport(&h)
	if err != nil {
		return nil, err
	}
	s := &server{host: h, transport: transport, probed: !h.guess, probeTimeout: c.opts.Probe}
	if h.own { // no mirror sees a credential
		s.login = login
	}
	once := headers{traced(transport, login.access.Trace), &s.base, h.header, s.login}
	s.once = once
	s.plain = retrying{&retry.Transport{Base: once, Policy: retryPolicy(c.opts.Backoff, maxWait, maxTries)}, once}
	s.auth = &auth.Client{
		Client: &http.Client{Transport: s.plain, CheckRedirect: checkRedirect},
		Header: http.Header{"User-Agent": {c.opts.UserAgent}},
		Cache:  auth.NewCache(), ClientID: "cleat",
		Credential: s.login.credential,
	}
	return s, nil
}

// Close closes the idle connections. Bodies have to be closed before.
func (r *Repository) Close() {
	for _, s := range r.servers {
		s.transport.CloseIdleConnections()
	}
}

// Reference returns the reference that the repository was opened for.
func (r *Repository) Reference() Reference { return r.ref }

// request creates a request below the API's root; path begins with a slash and may have a query. A mirror
// gets the name of the registry.
func (s *server) request(ctx context.Context, method, path string, header http.Header) (*http.Request, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, s.base.String()+path, nil)
	if err != nil {
		return nil, err
	}
	if q := req.URL.Query(); s.ns != "" && !q.Has("ns") {
		q.Set("ns", s.ns)
		req.URL.RawQuery = q.Encode()
	}
	for name, values := range header {
		req.Header[name] = values
	}
	return req, nil
}

// pullScope and pushScope make the token of the first request valid for all.
func (r *Repository) pullScope(ctx context.Context) context.Context {
	return auth.WithScopes(ctx, auth.ScopeRepository(r.ref.Repository, auth.ActionPull))
}

func (r *Repository) pushScope(ctx context.Context, more ...string) context.Context {
	scopes := []string{auth.ScopeRepository(r.ref.Repository, auth.ActionPull, auth.ActionPush)}
	for _, from := range more {
		scopes = append(scopes, auth.ScopeRepository(from, auth.ActionPull))
	}
	return auth.WithScopes(ctx, scopes...)
}

// each calls ask with the servers that have the capability, in turn, until one succeeds.
func (r *Repository) each(ctx context.Context, can capability, ask func(*server) error) error {
	var errs []error
	for _, s := range r.servers {
		if s.can&can == 0 {
			continue
		}
		err := ask(s)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return fmt.Errorf("registry %s: its hosts.toml has no host with that capability: %w", r.ref.Host, reason.With(errdefs.ErrFailedPrecondition, reason.RegistryConfig))
	}
	// The registry itself comes last, and its error determines the class; errors of mirrors are appended.
	last := errs[len(errs)-1]
	for _, e := range errs[:len(errs)-1] {
		last = &failure{text: last.Error() + "; before: " + e.Error(), class: last}
	}
	return last
}
