package config

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// gcPlugin is the published name of the collector's table in containerd's file.
const gcPlugin = "io.containerd.gc.v1.scheduler"

// isContainerdFile reports whether a decoded file is containerd's: by its version, or, as older ones
// have none, by tables that cleat's own does not have.
func isContainerdFile(doc map[string]any) bool {
	if v, ok := doc["version"].(int64); ok && v >= 2 && v <= 4 {
		return true
	}
	for _, key := range []string{"grpc", "ttrpc", "debug", "plugins", "disabled_plugins"} {
		if _, ok := doc[key]; ok {
			return true
		}
	}
	return false
}

// peerFile maps containerd's configuration file to a Config. Nothing in it is an error: a key that
// cleat ignores is named in a warning, unless its value has no effect (empty, zero, false).
type peerFile struct {
	cfg      *Config
	warnings []string
}

// loadContainerd maps doc, the text of containerd's file at path, over c.
func (c *Config) loadContainerd(path string, doc map[string]any) {
	p := &peerFile{cfg: c}
	for _, key := range slices.Sorted(maps.Keys(doc)) {
		p.top(key, doc[key])
	}
	p.dropUnusable()
	for _, w := range p.warnings {
		c.warnings = append(c.warnings, fmt.Sprintf("configuration %s: %s", path, w))
	}
}

// dropUnusable drops settings that are valid for containerd and cannot be used here: programs that are
// looked up in a PATH, and proxies of other kinds.
func (p *peerFile) dropUnusable() {
	for _, proc := range p.cfg.Processors() {
		if err := proc.Check(); err != nil {
			p.warn("stream_processors."+proc.ID, err.Error())
			delete(p.cfg.StreamProcessors, proc.ID)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.cfg.ProxyPlugins)) {
		proxy := p.cfg.ProxyPlugins[name]
		if err := proxy.check(name); err != nil {
			p.warn("proxy_plugins."+name, err.Error())
			delete(p.cfg.ProxyPlugins, name)
		}
	}
}

func (p *peerFile) top(key string, v any) {
	switch key {
	case "version", "temp":
		if key == "temp" {
			p.ignore(key, v)
		}
	case "root":
		p.text(key, v, &p.cfg.Root)
	case "state":
		p.text(key, v, &p.cfg.State)
	case "grpc":
		p.table(key, v, p.grpc)
	case "ttrpc":
		p.table(key, v, p.ttrpc)
	case "cgroup":
		p.table(key, v, p.cgroup)
	case "debug":
		p.table(key, v, p.debug)
	case "plugins":
		p.table(key, v, p.plugin)
	case "disabled_plugins":
		p.disabled(key, v)
	case "proxy_plugins", "stream_processors":
		p.passOn(key, v)
	default:
		p.ignore(key, v)
	}
}

func (p *peerFile) grpc(name, key string, v any) {
	switch key {
	case "address":
		p.text(name, v, &p.cfg.Address)
	case "gid":
		p.group(name, v)
	case "max_recv_message_size", "max_send_message_size":
		if n, ok := v.(int64); !ok || n != 0 && n != 16<<20 {
			p.warn(name, "messages are 16 MiB at most")
		}
	default:
		p.ignore(name, v)
	}
}

func (p *peerFile) ttrpc(name, key string, v any) {
	switch key {
	case "address":
		p.text(name, v, &p.cfg.TTRPCAddress)
	case "gid":
		if n, ok := v.(int64); !ok || int(n) != p.cfg.Group {
			p.ignore(name, v)
		}
	default:
		p.ignore(name, v)
	}
}

func (p *peerFile) cgroup(name, key string, v any) {
	if key != "path" {
		p.ignore(name, v)
		return
	}
	own := CgroupConfig{}
	p.text(name, v, &own.Path)
	if err := own.check(); err != nil {
		p.warn(name, err.Error())
		return
	}
	p.cfg.Cgroup = own
}

func (p *peerFile) debug(name, key string, v any) {
	switch key {
	case "level":
		level, ok := v.(string)
		if ok && level != "" {
			if _, err := parseLevel(level); err != nil {
				p.warn(name, fmt.Sprintf("unknown level %q", level))
				return
			}
			p.cfg.LogLevel = level
		} else if !ok {
			p.wrongType(name, v)
		}
	case "format":
		if format, ok := v.(string); ok && (format == "text" || format == "json") {
			p.cfg.LogFormat = format
			return
		}
		p.ignore(name, v)
	default:
		p.ignore(name, v)
	}
}

// plugin maps the table of one plugin; all others are one warning each.
func (p *peerFile) plugin(name, key string, v any) {
	if key != gcPlugin {
		p.ignore(name, v)
		return
	}
	data, err := toml.Marshal(v)
	if err != nil {
		p.warn(name, err.Error())
		return
	}
	gc := p.cfg.GC
	if err := decodeStrict(data, &gc); err != nil {
		p.warn(name, firstLine(err.Error()))
		return
	}
	if err := gc.check(); err != nil {
		p.warn(name, err.Error())
		return
	}
	p.cfg.GC = gc
}

// disabled warns of plugins that this daemon has and cannot disable. One that it does not have is
// disabled as requested.
func (p *peerFile) disabled(name string, v any) {
	list, ok := v.([]any)
	if !ok {
		p.wrongType(name, v)
		return
	}
	for _, e := range list {
		id, _ := e.(string)
		if id == "cri" || strings.HasSuffix(id, ".cri") {
			continue
		}
		p.warn(fmt.Sprintf("%s: %v", name, e), "plugins cannot be disabled")
	}
}

// passOn copies a table unchanged if cleat's own file has one of that name and form.
func (p *peerFile) passOn(name string, v any) {
	data, err := toml.Marshal(map[string]any{name: v})
	if err == nil {
		try := *p.cfg
		if err = decodeStrict(data, &try); err == nil {
			*p.cfg = try
			return
		}
	}
	p.ignore(name, v)
}

// table calls f for each entry of a table, with its dotted name and its key.
func (p *peerFile) table(name string, v any, f func(name, key string, v any)) {
	t, ok := v.(map[string]any)
	if !ok {
		p.wrongType(name, v)
		return
	}
	for _, key := range slices.Sorted(maps.Keys(t)) {
		full := name + "." + key
		if strings.Contains(key, ".") {
			full = fmt.Sprintf("%s.%q", name, key)
		}
		f(full, key, t[key])
	}
}

func (p *peerFile) text(name string, v any, into *string) {
	s, ok := v.(string)
	if !ok {
		p.wrongType(name, v)
		return
	}
	if s != "" {
		*into = s
	}
}

func (p *peerFile) group(name string, v any) {
	n, ok := v.(int64)
	if !ok || n < 0 || n > 1<<32-2 {
		p.wrongType(name, v)
		return
	}
	p.cfg.Group = int(n)
}

func (p *peerFile) ignore(name string, v any) {
	if !isZero(v) {
		p.warn(name, "no such setting in cleat")
	}
}

func (p *peerFile) wrongType(name string, v any) {
	p.warn(name, fmt.Sprintf("invalid value %v", v))
}

func (p *peerFile) warn(name, why string) {
	p.warnings = append(p.warnings, fmt.Sprintf("%s is ignored: %s", name, why))
}

// isZero reports whether a value is its type's zero, through tables and lists.
func isZero(v any) bool {
	switch v := v.(type) {
	case string:
		return v == "" || v == "0s"
	case bool:
		return !v
	case int64:
		return v == 0
	case float64:
		return v == 0
	case []any:
		return len(v) == 0
	case map[string]any:
		for _, e := range v {
			if !isZero(e) {
				return false
			}
		}
		return true
	}
	return false
}

// decodeStrict decodes a document; keys that into does not have are an error.
func decodeStrict(data []byte, into any) error {
	dec := toml.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
