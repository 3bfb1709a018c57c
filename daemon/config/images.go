package config

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/snapshot/btrfs"
	"github.com/cleatproject/cleat/snapshot/erofs"
	"github.com/cleatproject/cleat/snapshot/native"
	"github.com/cleatproject/cleat/snapshot/overlay"
)

// UnpackConfig is the table [unpack]: limits of an unpacked layer, however small its archive is.
type UnpackConfig struct {
	// MaxBytes bounds a layer's length, and that of its files together.
	MaxBytes int64 `toml:"max_bytes"`
	// MaxRatio bounds the same as a multiple of the pulled size, beyond the first 4 GiB.
	MaxRatio int64 `toml:"max_ratio"`
	// MaxEntries bounds a layer's files, directories and so on.
	MaxEntries int `toml:"max_entries"`
}

func defaultUnpack() UnpackConfig {
	l := image.DefaultLimits()
	return UnpackConfig{MaxBytes: l.Bytes, MaxRatio: l.Ratio, MaxEntries: l.Entries}
}

func (u UnpackConfig) check() error {
	if u.MaxBytes <= 0 || u.MaxRatio <= 0 || u.MaxEntries <= 0 {
		return fmt.Errorf("unpack.max_bytes %d, unpack.max_ratio %d, unpack.max_entries %d: want more than 0: %w", u.MaxBytes, u.MaxRatio, u.MaxEntries, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Limits returns the limits of unpacking for this configuration.
func (u UnpackConfig) Limits() image.Limits {
	return image.Limits{Bytes: u.MaxBytes, Ratio: u.MaxRatio, Entries: u.MaxEntries}
}

// StreamProcessor is the configuration of a program that turns layers of one media type into another.
type StreamProcessor struct {
	// Accepts are the media types it reads, Returns is the one it writes.
	Accepts []string `toml:"accepts"`
	Returns string   `toml:"returns"`
	// Path is the program's, absolute.
	Path string   `toml:"path"`
	Args []string `toml:"args"`
	// Env is its whole environment, except for the description of the stream.
	Env []string `toml:"env"`
}

// Processors returns the configured stream processors, in the order of their names.
func (c *Config) Processors() (list []archive.Processor) {
	for _, id := range slices.Sorted(maps.Keys(c.StreamProcessors)) {
		p := c.StreamProcessors[id]
		list = append(list, archive.Processor{ID: id, Accepts: p.Accepts, Returns: p.Returns, Path: p.Path, Args: p.Args, Env: p.Env})
	}
	return list
}

func (c *Config) checkProcessors() error {
	for _, p := range c.Processors() {
		if err := p.Check(); err != nil {
			return err
		}
	}
	return nil
}

// ProxyPlugin is the configuration of a snapshotter that another process serves.
type ProxyPlugin struct {
	// Type is "snapshot".
	Type string `toml:"type"`
	// Address is the path of its unix socket, which serves containerd's snapshots API on gRPC.
	Address string `toml:"address"`
	// Snapshotter is its name in that process; empty: the same as here.
	Snapshotter string `toml:"snapshotter"`
	// Namespace is the one for its snapshots in that process; empty: default.
	Namespace string `toml:"namespace"`
	// Platform, Exports and Capabilities occur in files for containerd; they are ignored.
	Platform     string            `toml:"platform"`
	Exports      map[string]string `toml:"exports"`
	Capabilities []string          `toml:"capabilities"`
}

// checkProxies checks the proxy plugins and sets their missing values.
func (c *Config) checkProxies() error {
	for name, p := range c.ProxyPlugins {
		p.Address = strings.TrimPrefix(p.Address, "unix://")
		if err := p.check(name); err != nil {
			return err
		}
		if p.Snapshotter == "" {
			p.Snapshotter = name
		}
		if p.Namespace == "" {
			p.Namespace = DefaultNamespace
		}
		c.ProxyPlugins[name] = p
	}
	return nil
}

func (p *ProxyPlugin) check(name string) error {
	switch {
	case p.Type != "snapshot":
		return fmt.Errorf("proxy plugin %s: type %q: only \"snapshot\" is supported: %w", name, p.Type, errdefs.ErrInvalidArgument)
	case !filepath.IsAbs(strings.TrimPrefix(p.Address, "unix://")):
		return fmt.Errorf("proxy plugin %s: address %q: want the absolute path of a socket: %w", name, p.Address, errdefs.ErrInvalidArgument)
	case slices.Contains(OwnSnapshotters(), name):
		return fmt.Errorf("proxy plugin %s: cleatd has a snapshotter of that name: %w",
			name, errdefs.ErrInvalidArgument)
	}
	return nil
}

// OwnSnapshotters returns the names of cleat's own drivers.
func OwnSnapshotters() []string { return []string{overlay.Name, btrfs.Name, native.Name, erofs.Name} }
