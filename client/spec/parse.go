package spec

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatproject/cleat/internal/bytesize"
)

// ParseMount parses a mount in the form type=bind|tmpfs,src=PATH,dst=PATH[,ro][,KEY=VALUE...].
// The other keys are bind-propagation, tmpfs-size, tmpfs-mode and options (several after colons).
func ParseMount(text string) (specs.Mount, error) {
	m := specs.Mount{Type: "bind"}
	var extra []string
	readOnly := false
	for _, field := range strings.Split(text, ",") {
		key, value, hasValue := strings.Cut(field, "=")
		switch key {
		case "type":
			m.Type = value
		case "src", "source":
			m.Source = value
		case "dst", "destination", "target":
			m.Destination = value
		case "ro", "readonly":
			on, err := boolean(value, hasValue)
			if err != nil {
				return m, invalid("mount %q: %s=%s: want true or false", text, key, value)
			}
			readOnly = on
		case "bind-propagation":
			extra = append(extra, value)
		case "tmpfs-size":
			if _, err := ParseBytes(value); err != nil {
				return m, err
			}
			extra = append(extra, "size="+value)
		case "tmpfs-mode":
			extra = append(extra, "mode="+value)
		case "options":
			extra = append(extra, strings.Split(value, ":")...)
		default:
			return m, invalid("mount %q: unknown key %q; want type, src, dst, ro, bind-propagation, tmpfs-size, tmpfs-mode or options", text, key)
		}
	}
	return complete(m, readOnly, extra, text)
}

// ParseVolume parses a bind mount in the short form SRC:DST[:OPTION,...].
func ParseVolume(text string) (specs.Mount, error) {
	parts := strings.SplitN(text, ":", 3)
	if len(parts) < 2 {
		return specs.Mount{}, invalid("volume %q: want SRC:DST or SRC:DST:ro, both absolute paths", text)
	}
	m := specs.Mount{Type: "bind", Source: parts[0], Destination: parts[1]}
	var extra []string
	readOnly := false
	if len(parts) == 3 {
		for _, o := range strings.Split(parts[2], ",") {
			switch o {
			case "ro":
				readOnly = true
			case "rw":
			default:
				extra = append(extra, o)
			}
		}
	}
	return complete(m, readOnly, extra, text)
}

// complete checks a mount and adds the options that its type needs.
func complete(m specs.Mount, readOnly bool, extra []string, text string) (specs.Mount, error) {
	if !filepath.IsAbs(m.Destination) || filepath.Clean(m.Destination) == "/" {
		return m, invalid("mount %q: destination %q: want an absolute path below /", text, m.Destination)
	}
	m.Destination = filepath.Clean(m.Destination)
	switch m.Type {
	case "bind":
		for _, o := range extra {
			if !slices.Contains(bindOptions(), o) {
				return m, invalid("mount %q: unknown option %q: want one of %s", text, o, strings.Join(bindOptions(), ", "))
			}
		}
		if !filepath.IsAbs(m.Source) {
			return m, invalid("mount %q: source %q: want an absolute path", text, m.Source)
		}
		m.Options = []string{"rbind"}
		if !hasPropagation(extra) {
			m.Options = append(m.Options, "rprivate")
		}
	case "tmpfs":
		if m.Source != "" && m.Source != "tmpfs" {
			return m, invalid("mount %q: a tmpfs has no source", text)
		}
		m.Source = "tmpfs"
		m.Options = []string{"nosuid", "nodev"}
	default:
		return m, invalid("mount %q: type %q: want bind or tmpfs", text, m.Type)
	}
	if readOnly {
		m.Options = append(m.Options, "ro")
	}
	m.Options = append(m.Options, extra...)
	return m, nil
}

// bindOptions are the options of a bind mount besides ro and rw.
func bindOptions() []string {
	return []string{
		"private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable",
		"nosuid", "suid", "nodev", "dev", "noexec", "exec", "atime", "noatime", "diratime", "nodiratime",
		"relatime", "norelatime", "strictatime", "nostrictatime", "sync", "async", "bind", "rbind", "idmap", "ridmap",
	}
}

func hasPropagation(options []string) bool {
	for _, o := range options {
		switch strings.TrimPrefix(o, "r") {
		case "private", "shared", "slave", "unbindable":
			return true
		}
	}
	return false
}

func boolean(value string, given bool) (bool, error) {
	if !given {
		return true, nil
	}
	return strconv.ParseBool(value)
}

// ParseBytes reads a size, as of bytesize.Parse; spaces around it are ignored.
func ParseBytes(text string) (int64, error) { return bytesize.Parse(strings.TrimSpace(text)) }
