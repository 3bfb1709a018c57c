// Package config holds the configuration of cleatd: its file, which may also be containerd's, the
// defaults, and the checks of both. Errors name the key and have the class invalid argument.
package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/policy"
	"github.com/cleatproject/cleat/internal/identifier"
	"github.com/cleatproject/cleat/internal/version"
)

// Config is the configuration file, /etc/cleat/config.toml; flags override it.
type Config struct {
	// Version is the format of the file: 1.
	Version int `toml:"version"`
	// Root holds what must survive a reboot.
	Root string `toml:"root"`
	// State holds what need not: bundles, sockets of shims, the OCI runtime's state.
	State string `toml:"state"`
	// Address is the gRPC socket, TTRPCAddress the ttrpc one; empty: Address + ".ttrpc".
	Address      string `toml:"address"`
	TTRPCAddress string `toml:"ttrpc_address"`
	// LogLevel is debug, info, warn or error.
	LogLevel string `toml:"log_level"`
	// LogFormat is text or json.
	LogFormat string `toml:"log_format"`
	// Group may use the sockets in addition to root; a numeric group id, 0 for none.
	Group int `toml:"group"`
	// Snapshotter is the default one.
	Snapshotter string `toml:"snapshotter"`
	// Runtime is the default one.
	Runtime string `toml:"runtime"`
	// Runtimes maps runtime names to other names or to absolute paths of shims.
	Runtimes map[string]string `toml:"runtimes"`
	// CgroupParent is the cgroup of containers without one of their own.
	CgroupParent string `toml:"cgroup_parent"`
	// Cgroup is the daemon's own cgroup.
	Cgroup CgroupConfig `toml:"cgroup"`
	// DecompressHelpers allows system programs to decompress layers, if they are faster than cleatd
	// itself.
	DecompressHelpers bool `toml:"decompress_helpers"`
	// Unpack bounds the size of an unpacked layer.
	Unpack UnpackConfig `toml:"unpack"`
	// StreamProcessors are programs that decode layers, by their names.
	StreamProcessors map[string]StreamProcessor `toml:"stream_processors"`
	// ProxyPlugins are snapshotters that other processes serve, by their names.
	ProxyPlugins map[string]ProxyPlugin `toml:"proxy_plugins"`
	// EventsKeep is the event log's retention in bytes, for clients that reconnect.
	EventsKeep int64 `toml:"events_keep"`
	// NamespaceAccess limits users, by their numeric ids, to namespaces.
	NamespaceAccess map[string][]string `toml:"namespace_access,omitempty"`
	// Policy holds the rights of users, by their numeric ids; those of NamespaceAccess are restricted without an
	// entry here.
	Policy map[string]PolicyConfig `toml:"policy,omitempty"`
	// GC configures when garbage is collected.
	GC GCConfig `toml:"gc"`
	// RegistryConfigPath is a directory with a folder for each registry, with a hosts.toml.
	RegistryConfigPath string `toml:"registry_config_path"`
	// RegistryUploadChunk is the size in bytes above which a blob is uploaded by chunks; 0 for never.
	RegistryUploadChunk int64 `toml:"registry_upload_chunk"`
	// RegistryRangeFrom is the size in bytes from which a blob is fetched by RegistryRanges requests;
	// RegistryRanges below 2 means a single request.
	RegistryRangeFrom int64 `toml:"registry_range_from"`
	RegistryRanges    int   `toml:"registry_ranges"`

	// warnings are logged once there is a log.
	warnings []string
}

// Default paths.
const (
	DefaultConfig  = "/etc/cleat/config.toml"
	defaultRoot    = "/var/lib/cleat"
	defaultState   = "/run/cleat"
	defaultAddress = "/run/cleat/cleat.sock"
	defaultCerts   = "/etc/cleat/certs.d"

	// defaultUploadChunk bounds what is sent again if a registry discards an interrupted request.
	defaultUploadChunk = 64 << 20
	minUploadChunk     = 1 << 10

	defaultRangeFrom = 32 << 20
	defaultRanges    = 4
	maxRanges        = 16
)

// Default returns the configuration of a daemon without a file and flags.
func Default() Config {
	return Config{
		Version: 1, Root: defaultRoot, State: defaultState, Address: defaultAddress,
		LogLevel: "info", LogFormat: "text", Snapshotter: "overlayfs", Runtime: "io.containerd.cleat.v2",
		Runtimes:   map[string]string{"io.containerd.runc.v2": "io.containerd.cleat.v2"},
		EventsKeep: 64 << 20, DecompressHelpers: true, GC: defaultGC(), Unpack: defaultUnpack(), RegistryConfigPath: defaultCerts,
		RegistryUploadChunk: defaultUploadChunk, RegistryRangeFrom: defaultRangeFrom, RegistryRanges: defaultRanges,
	}
}

// Load reads a configuration file over c. A missing file is an error only if must is set. Unknown
// keys are errors, so that a misspelt one is not ignored. A file of containerd's is mapped, and its
// ignored settings are returned by Warnings.
func (c *Config) Load(path string, must bool) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && !must {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	var doc map[string]any
	if err := toml.Unmarshal(data, &doc); err == nil && isContainerdFile(doc) {
		c.loadContainerd(path, doc)
		return nil
	}
	if err := decodeStrict(data, c); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) {
			return fmt.Errorf("configuration %s: unknown keys:\n%s: %w", path, strict.String(), errdefs.ErrInvalidArgument)
		}
		return fmt.Errorf("configuration %s: %w: %w", path, err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Complete checks c and fills in derived values.
func (c *Config) Complete() error {
	if c.Version != 1 {
		return fmt.Errorf("configuration version %d: this cleatd reads version 1: %w", c.Version, errdefs.ErrInvalidArgument)
	}
	for name, p := range map[string]*string{"root": &c.Root, "state": &c.State, "address": &c.Address} {
		*p = strings.TrimPrefix(*p, "unix://")
		if !filepath.IsAbs(*p) {
			return fmt.Errorf("%s %q: want an absolute path: %w", name, *p, errdefs.ErrInvalidArgument)
		}
		*p = filepath.Clean(*p)
	}
	if c.Root == c.State {
		return fmt.Errorf("root and state are both %s: they must differ: %w", c.Root, errdefs.ErrInvalidArgument)
	}
	if c.TTRPCAddress == "" {
		c.TTRPCAddress = c.Address + ".ttrpc"
	}
	c.TTRPCAddress = strings.TrimPrefix(c.TTRPCAddress, "unix://")
	if c.CgroupParent == "" {
		c.CgroupParent = cgroupParent(c.Root, c.State)
	}
	if n := c.RegistryRanges; n < 0 || n > maxRanges {
		return fmt.Errorf("registry_ranges %d: want 0 to %d: %w", n, maxRanges, errdefs.ErrInvalidArgument)
	}
	if n := c.RegistryRangeFrom; n < 0 {
		return fmt.Errorf("registry_range_from %d: want 0, for never, or a size in bytes: %w", n, errdefs.ErrInvalidArgument)
	}
	if n := c.RegistryUploadChunk; n < 0 || n > 0 && n < minUploadChunk {
		return fmt.Errorf("registry_upload_chunk %d: want 0, or %d bytes or more: %w", n, minUploadChunk, errdefs.ErrInvalidArgument)
	}
	if c.RegistryConfigPath != "" && !filepath.IsAbs(c.RegistryConfigPath) {
		return fmt.Errorf("registry_config_path %q: want an absolute path: %w", c.RegistryConfigPath, errdefs.ErrInvalidArgument)
	}
	if err := c.Cgroup.check(); err != nil {
		return err
	}
	if !filepath.IsAbs(c.CgroupParent) {
		return fmt.Errorf("cgroup_parent %q: want an absolute path: %w", c.CgroupParent, errdefs.ErrInvalidArgument)
	}
	if err := errors.Join(c.checkProcessors(), c.checkProxies(), c.Unpack.check()); err != nil {
		return err
	}
	if _, err := c.Access(); err != nil {
		return err
	}
	return c.GC.check()
}

// Access returns NamespaceAccess and Policy in the form that the API uses. A user that is limited to namespaces
// has a policy, the strictest unless the configuration has one.
func (c *Config) Access() (access.Users, error) {
	a := make(access.Users)
	for user, namespaces := range c.NamespaceAccess {
		uid, err := strconv.ParseUint(user, 10, 32)
		if err != nil || uid == 0 {
			return nil, fmt.Errorf("namespace_access.%s: want a numeric user id other than root's: %w", user, errdefs.ErrInvalidArgument)
		}
		for _, ns := range namespaces {
			if err := identifier.Check(ns); err != nil {
				return nil, fmt.Errorf("namespace_access.%s: %w", user, err)
			}
		}
		a[uint32(uid)] = access.User{Namespaces: append([]string{}, namespaces...), Policy: &policy.Policy{UID: uint32(uid), Default: c.Runtime}}
	}
	for user, conf := range c.Policy {
		uid, err := strconv.ParseUint(user, 10, 32)
		if err != nil || uid == 0 {
			return nil, fmt.Errorf("policy.%s: want a numeric user id other than root's: %w", user, errdefs.ErrInvalidArgument)
		}
		u := a[uint32(uid)]
		if u.Policy, err = conf.policy(uint32(uid), c.Runtime); err != nil {
			return nil, fmt.Errorf("policy.%s: %w", user, err)
		}
		a[uint32(uid)] = u
	}
	return a, nil
}

// Logger returns the configured logger, which writes to stderr.
func (c *Config) Logger() (*slog.Logger, error) {
	level, err := parseLevel(c.LogLevel)
	if err != nil {
		return nil, err
	}
	opts := &slog.HandlerOptions{Level: level}
	switch c.LogFormat {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, opts)), nil
	}
	return nil, fmt.Errorf("log_format %q: want text or json: %w", c.LogFormat, errdefs.ErrInvalidArgument)
}

// parseLevel returns the level of a name; containerd's additional names map to the nearest.
func parseLevel(name string) (level slog.Level, err error) {
	switch strings.ToLower(name) {
	case "trace":
		return slog.LevelDebug, nil
	case "warning":
		return slog.LevelWarn, nil
	case "fatal", "panic":
		return slog.LevelError, nil
	}
	if err := level.UnmarshalText([]byte(name)); err != nil {
		return 0, fmt.Errorf("log_level %q: want debug, info, warn or error: %w", name, errdefs.ErrInvalidArgument)
	}
	return level, nil
}

// Warnings returns the settings that Load ignored, one per line.
func (c *Config) Warnings() []string { return c.warnings }

// Write writes c as a configuration file that Load can read.
func (c *Config) Write(w io.Writer) error {
	if err := toml.NewEncoder(w).Encode(c); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

// Version returns the version of this build.
func Version() string { return version.Version() }

// DefaultNamespace exists in every daemon since its first start.
const DefaultNamespace = "default"
