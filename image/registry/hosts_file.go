package registry

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxHostsFile bounds a hosts.toml in bytes.
const maxHostsFile = 1 << 20

// hostTable is the part of hosts.toml about one server. Values that may be a string or a list are parsed
// by asList.
type hostTable struct {
	Capabilities []string       `toml:"capabilities"`
	CA           any            `toml:"ca"`
	Client       any            `toml:"client"`
	SkipVerify   bool           `toml:"skip_verify"`
	Header       map[string]any `toml:"header"`
	OverridePath bool           `toml:"override_path"`
	DialTimeout  string         `toml:"dial_timeout"`
}

type hostsTable struct {
	Server string `toml:"server"`
	hostTable
	Host map[string]hostTable `toml:"host"`
}

// decodeHosts decodes hosts.toml, and returns its unknown keys, with their parents.
func decodeHosts(raw []byte) (table hostsTable, unknown []string, err error) {
	if len(raw) > maxHostsFile {
		return table, nil, fmt.Errorf("size %d exceeds the maximum of %d: %w", len(raw), maxHostsFile, errdefs.ErrInvalidArgument)
	}
	err = toml.NewDecoder(bytes.NewReader(raw)).DisallowUnknownFields().Decode(&table)
	var strict *toml.StrictMissingError // all else was decoded
	if errors.As(err, &strict) {
		for _, e := range strict.Errors {
			unknown = append(unknown, strings.Join(e.Key(), "."))
		}
		return table, unknown, nil
	}
	if err != nil {
		return table, nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return table, nil, nil
}

// parseHosts parses hosts.toml: the mirrors in the order of the file, then the registry itself. Paths are
// relative to dir. unknown are the unknown keys.
func parseHosts(raw []byte, registry, dir, scheme string) (hosts []host, unknown []string, err error) {
	table, unknown, err := decodeHosts(raw)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range hostOrder(raw) {
		t, ok := table.Host[name]
		if !ok {
			continue
		}
		h, err := t.host(name, dir)
		if err != nil {
			return nil, unknown, fmt.Errorf("host %q: %w", name, err)
		}
		hosts = append(hosts, h)
	}
	own := defaultHost(registry, scheme)
	server := table.Server
	if server == "" {
		server = own.base.Scheme + "://" + own.base.Host
	}
	h, err := table.host(server, dir)
	if err != nil {
		return nil, unknown, err
	}
	h.own = true
	h.guess = h.guess || table.Server == "" && own.guess
	for i := range hosts {
		if hosts[i].base.Host == h.base.Host && hosts[i].base.Path == h.base.Path &&
			(hosts[i].base.Scheme == h.base.Scheme || table.Server == "") {
			// The registry itself, listed again to configure how it is reached: not a mirror. It is not contacted
			// again, in another way, for the same content.
			hosts[i].own = true
			h.can &^= hosts[i].can
		}
	}
	return append(hosts, h), unknown, nil
}

// hostOrder returns the names of the tables [host.NAME] in their order, which is lost in a decoded map.
func hostOrder(raw []byte) []string {
	var names []string
	seen := make(map[string]bool)
	p := unstable.Parser{}
	p.Reset(raw)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.Table {
			continue
		}
		keys := e.Key()
		if !keys.Next() || string(keys.Node().Data) != "host" || !keys.Next() {
			continue
		}
		if name := string(keys.Node().Data); !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}

// host converts the part of the file to a host.
func (t hostTable) host(server, dir string) (h host, err error) {
	if h.base, err = parseServer(server, t.OverridePath); err != nil {
		return h, err
	}
	h.guess = !strings.Contains(server, "://") && isLoopback(h.base.Host)
	h.skipVerify = t.SkipVerify
	if h.can, err = capabilities(t.Capabilities); err != nil {
		return h, err
	}
	if h.ca, err = asList("ca", t.CA); err != nil {
		return h, err
	}
	for i := range h.ca {
		h.ca[i] = below(dir, h.ca[i])
	}
	if h.clients, err = keyPairs(t.Client, dir); err != nil {
		return h, err
	}
	for name, v := range t.Header {
		values, err := asList("header "+name, v)
		if err != nil {
			return h, err
		}
		if h.header == nil {
			h.header = make(http.Header)
		}
		h.header[http.CanonicalHeaderKey(name)] = values
	}
	if t.DialTimeout != "" {
		if h.dial, err = time.ParseDuration(t.DialTimeout); err != nil || h.dial <= 0 {
			return h, fmt.Errorf("dial_timeout %q: want a time such as 3s: %w", t.DialTimeout, errdefs.ErrInvalidArgument)
		}
	}
	return h, nil
}

func capabilities(names []string) (capability, error) {
	if names == nil {
		return canAll, nil
	}
	var c capability
	for _, n := range names {
		switch n {
		case "resolve":
			c |= canResolve
		case "pull":
			c |= canPull
		case "push":
			c |= canPush
		default:
			return 0, fmt.Errorf("capability %q: want resolve, pull or push: %w", n, errdefs.ErrInvalidArgument)
		}
	}
	return c, nil
}

// keyPairs parses client: a path, a list of paths, or a list of pairs of paths.
func keyPairs(v any, dir string) ([]keyPair, error) {
	items, ok := v.([]any)
	if !ok {
		items = []any{v}
	}
	var out []keyPair
	for _, item := range items {
		if item == nil {
			continue
		}
		paths, err := asList("client", item)
		if err != nil {
			return nil, err
		}
		switch {
		case len(paths) == 1:
			out = append(out, keyPair{below(dir, paths[0]), below(dir, paths[0])})
		case len(paths) == 2 && paths[1] == "":
			out = append(out, keyPair{below(dir, paths[0]), below(dir, paths[0])})
		case len(paths) == 2:
			out = append(out, keyPair{below(dir, paths[0]), below(dir, paths[1])})
		default:
			return nil, fmt.Errorf("client: want a path or a pair of paths, certificate and key: %w", errdefs.ErrInvalidArgument)
		}
	}
	return out, nil
}

// asList converts a string or a list of strings to a list.
func asList(what string, v any) ([]string, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		out := make([]string, len(v))
		for i, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, fmt.Errorf("%s: want strings: %w", what, errdefs.ErrInvalidArgument)
			}
			out[i] = s
		}
		return out, nil
	}
	return nil, fmt.Errorf("%s: want a string or a list of strings: %w", what, errdefs.ErrInvalidArgument)
}

func below(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
