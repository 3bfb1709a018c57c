package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/image"
)

func load(t *testing.T, text string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Default()
	if err := cfg.Load(path, true); err != nil {
		return cfg, err
	}
	return cfg, cfg.Complete()
}

func TestLoad_OverridesDefaults(t *testing.T) {
	cfg, err := load(t, `
		version = 1
		root = "/srv/cleat/"
		state = "/run/other"
		address = "unix:///run/other/c.sock"
		[gc]
		mutation_threshold = 7
		schedule_delay = "2s"
		[unpack]
		max_ratio = 9
		[runtimes]
		"io.example.v1" = "/opt/shim"
	`)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Root != "/srv/cleat" || cfg.State != "/run/other" || cfg.Address != "/run/other/c.sock" ||
		cfg.TTRPCAddress != "/run/other/c.sock.ttrpc" || cfg.Runtimes["io.example.v1"] != "/opt/shim" {
		t.Fatalf("%+v", cfg)
	}
	if want := (GCConfig{PauseThreshold: 0.02, MutationThreshold: 7, ScheduleDelay: duration(2 * time.Second), StartupDelay: duration(100 * time.Millisecond)}); cfg.GC != want {
		t.Fatalf("gc is %+v, want %+v", cfg.GC, want)
	}
	if want := (image.Limits{Bytes: 256 << 30, Ratio: 9, Entries: 10_000_000}); cfg.Unpack.Limits() != want {
		t.Fatalf("limits are %+v, want %+v", cfg.Unpack.Limits(), want)
	}
	if cfg.Snapshotter != "overlayfs" || cfg.LogLevel != "info" {
		t.Fatalf("defaults are missing: %+v", cfg)
	}
	if !strings.HasPrefix(cfg.CgroupParent, "/cleat-") {
		t.Fatalf("a daemon with directories of its own shares the cgroup %s", cfg.CgroupParent)
	}
}

func TestCgroupParent_MainDaemon(t *testing.T) {
	cfg := Default()
	if err := cfg.Complete(); err != nil || cfg.CgroupParent != "/cleat" {
		t.Fatal(cfg.CgroupParent, err)
	}
}

func TestLoad_InvalidConfiguration_Fails(t *testing.T) {
	for text, says := range map[string]string{
		`rot = "/x"`:                          "rot",
		`root = 5`:                            "toml",
		`version = 7`:                         "version 7",
		`root = "relative"`:                   "absolute",
		"root = \"/same\"\nstate = \"/same\"": "differ",
		`cgroup_parent = "x"`:                 "absolute",
		`[`:                                   "toml",
		"[unpack]\nmax_bytes = -1":            "unpack.max_bytes",
		"[unpack]\nmax_ratio = 0":             "unpack.max_ratio",
		"[gc]\npause_threshold = 0.6":         "pause_threshold",
		"[gc]\nschedule_delay = \"soon\"":     "toml",
		"[gc]\nstartup_delay = \"-1s\"":       "startup_delay",
		"[gc]\nmutation_threshold = -1":       "mutation_threshold",
		"[gc]\nmutations = 1":                 "mutations",
		"[namespace_access]\nroot = []":       "numeric",
		"[namespace_access]\n0 = []":          "numeric",
		"[namespace_access]\n5 = [\"a/b\"]":   "a/b",
	} {
		_, err := load(t, text)
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestLogger(t *testing.T) {
	for _, cfg := range []Config{{LogLevel: "loud", LogFormat: "text"}, {LogLevel: "info", LogFormat: "xml"}} {
		if _, err := cfg.Logger(); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

func TestLoad_MissingFile(t *testing.T) {
	cfg := Default()
	missing := filepath.Join(t.TempDir(), "nothing.toml")
	if err := cfg.Load(missing, false); err != nil {
		t.Error(err)
	}
	if err := cfg.Load(missing, true); err == nil {
		t.Error("a named file that is missing passed")
	}
}

func FuzzConfiguration(f *testing.F) {
	f.Add(`root = "/x"`)
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := load(t, text)
		if err == nil && (!filepath.IsAbs(cfg.Root) || !filepath.IsAbs(cfg.Address) || !filepath.IsAbs(cfg.TTRPCAddress)) {
			t.Fatalf("%+v", cfg)
		}
	})
}

func TestProxyPluginsAndStreamProcessors(t *testing.T) {
	cfg, err := load(t, `
		[proxy_plugins.stargz]
		type = "snapshot"
		address = "/run/stargz.sock"
		[proxy_plugins.stargz.exports]
		root = "/var/lib/stargz"
		[proxy_plugins.other]
		type = "snapshot"
		address = "unix:///run/other.sock"
		snapshotter = "overlayfs"
		namespace = "ns"
		[stream_processors."io.b"]
		accepts = ["a"]
		returns = "b"
		path = "/usr/bin/b"
		args = ["-x"]
		env = ["K=v"]
		[stream_processors."io.a"]
		accepts = ["c"]
		returns = "d"
		path = "/usr/bin/a"
	`)
	if err != nil {
		t.Fatal(err)
	}
	if p := cfg.ProxyPlugins["stargz"]; p.Address != "/run/stargz.sock" || p.Snapshotter != "stargz" || p.Namespace != "default" {
		t.Errorf("%+v", p)
	}
	if p := cfg.ProxyPlugins["other"]; p.Address != "/run/other.sock" || p.Snapshotter != "overlayfs" || p.Namespace != "ns" {
		t.Errorf("%+v", p)
	}
	if p := cfg.Processors(); len(p) != 2 || p[0].ID != "io.a" || p[1].Path != "/usr/bin/b" || p[1].Args[0] != "-x" || p[1].Env[0] != "K=v" {
		t.Errorf("%+v", p)
	}
	for _, bad := range []string{
		"[proxy_plugins.x]\ntype = \"content\"\naddress = \"/a\"",
		"[proxy_plugins.x]\ntype = \"snapshot\"\naddress = \"a\"",
		"[proxy_plugins.overlayfs]\ntype = \"snapshot\"\naddress = \"/a\"",
		"[stream_processors.x]\naccepts = [\"a\"]\nreturns = \"b\"\npath = \"b\"",
		"[stream_processors.x]\nreturns = \"b\"\npath = \"/b\"",
	} {
		if _, err := load(t, bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
