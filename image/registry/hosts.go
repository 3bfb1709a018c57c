package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/reason"
)

// capability is a set of operations that a host is used for.
type capability uint8

const (
	canResolve capability = 1 << iota
	canPull
	canPush
	canAll = canResolve | canPull | canPush
)

// keyPair is a client's certificate and its key, as paths; one file may hold both.
type keyPair struct{ cert, key string }

// host is a server that may serve the content of a registry.
type host struct {
	// base is the scheme, host and root of the API, without a trailing slash.
	base       url.URL
	can        capability
	ca         []string
	clients    []keyPair
	skipVerify bool
	header     http.Header
	dial       time.Duration // 0 for the default
	// own marks the registry itself, which credentials are for, in contrast to a mirror.
	own bool
	// guess marks a host on loopback whose scheme is not configured: it may speak plain HTTP.
	guess bool
	// ns is the registry that a mirror is used for, "" for the registry itself: each of
	// its requests has it as a query.
	ns string
}

const hostsFile = "hosts.toml"

// hostsFor returns the servers to contact for a registry's content, in order. scheme, if not "", is
// the registry's scheme unless the configuration says otherwise. Unknown keys are ignored, because other programs
// read the file too, but logged: a mistyped key would otherwise go unnoticed, and without
// its capabilities, say, a mirror is pushed to.
func (c *Client) hostsFor(configPath, registry, scheme string) ([]host, error) {
	dir, err := configDir(configPath, registry)
	if err != nil {
		return nil, err
	}
	if dir == "" {
		return []host{defaultHost(registry, scheme)}, nil
	}
	raw, err := os.ReadFile(filepath.Join(dir, hostsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return certificatesOnly(dir, registry, scheme)
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration of registry %s: %w", registry, reason.Default(err, reason.RegistryConfig))
	}
	hosts, unknown, err := parseHosts(raw, registry, dir, scheme)
	if len(unknown) > 0 {
		c.opts.Log.Warn("unknown keys in the configuration of a registry", "file", filepath.Join(dir, hostsFile), "keys", unknown)
	}
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", filepath.Join(dir, hostsFile), err)
	}
	for i := range hosts {
		if at := hosts[i].base.Host; at != registry && at != registryHost(registry) {
			hosts[i].ns = registry
		}
	}
	return hosts, nil
}

// configDir returns the folder for a registry, or "". A port may be written :5000 or _5000_; _default is
// for registries without a folder.
func configDir(configPath, registry string) (string, error) {
	if configPath == "" {
		return "", nil
	}
	names := []string{registry}
	if name, port, ok := strings.Cut(registry, ":"); ok {
		names = append(names, name+"_"+port+"_")
	}
	for _, name := range append(names, "_default") {
		dir := filepath.Join(configPath, name)
		info, err := os.Stat(dir)
		if err == nil && info.IsDir() {
			return dir, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("look for configuration of registry %s: %w", registry, reason.Default(err, reason.RegistryConfig))
		}
	}
	return "", nil
}

// certificatesOnly reads a folder in Docker's layout: *.crt of authorities, *.cert with *.key of clients.
func certificatesOnly(dir, registry, scheme string) ([]host, error) {
	h := defaultHost(registry, scheme)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read configuration of registry %s: %w", registry, reason.Default(err, reason.RegistryConfig))
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch filepath.Ext(path) {
		case ".crt":
			h.ca = append(h.ca, path)
		case ".cert":
			h.clients = append(h.clients, keyPair{path, strings.TrimSuffix(path, ".cert") + ".key"})
		}
	}
	return []host{h}, nil
}

// registryHost returns the address of a registry by its name.
func registryHost(registry string) string {
	if registry == "docker.io" {
		return "registry-1.docker.io"
	}
	return registry
}

// defaultHost returns the registry itself, for one without configuration.
func defaultHost(registry, scheme string) host {
	at := registryHost(registry)
	h := host{
		base: url.URL{Scheme: "https", Host: at, Path: "/v2"}, can: canAll, own: true, guess: isLoopback(at),
	}
	if scheme != "" {
		h.base.Scheme, h.guess = scheme, false
	}
	return h
}

// isLoopback reports whether a host, with or without port, is this machine by its name.
func isLoopback(hostport string) bool {
	name := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		name = h
	}
	if name == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && addr.IsLoopback()
}

// isThisMachine reports whether an untrusted URL refers to this machine, in any form except
// a name that has to be looked up.
func isThisMachine(u *url.URL) bool {
	name := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if isLoopback(name) || strings.HasSuffix(name, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && (addr.Unmap().IsLoopback() || addr.Unmap().IsUnspecified())
}

// parseServer parses a server of the configuration, a URL or a host alone.
func parseServer(text string, overridePath bool) (url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" {
		return url.URL{}, fmt.Errorf("server %.256q: want http[s]://HOST[:PORT][/PATH]: %w", text, errdefs.ErrInvalidArgument)
	}
	base := url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}
	if !overridePath && !strings.HasSuffix(base.Path, "/v2") {
		base.Path += "/v2"
	}
	return base, nil
}
