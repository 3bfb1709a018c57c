package config

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLoad_ContainerdFile(t *testing.T) {
	cfg, err := load(t, `
		version = 2
		root = "/srv/peer"
		state = "/run/peer"
		temp = ""
		oom_score = -999
		disabled_plugins = ["cri", "io.containerd.snapshotter.v1.btrfs"]
		[grpc]
		address = "/run/peer/c.sock"
		gid = 77
		max_recv_message_size = 16777216
		[ttrpc]
		address = "/run/peer/t.sock"
		gid = 5
		[debug]
		level = "trace"
		[plugins."io.containerd.gc.v1.scheduler"]
		mutation_threshold = 9
		schedule_delay = "3s"
		[plugins."io.containerd.grpc.v1.cri"]
		sandbox_image = "pause"
		[plugins."io.containerd.internal.v1.opt"]
		path = ""
	`)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Root != "/srv/peer" || cfg.State != "/run/peer" || cfg.Address != "/run/peer/c.sock" || cfg.Group != 77 ||
		cfg.TTRPCAddress != "/run/peer/t.sock" || cfg.LogLevel != "trace" || cfg.Version != 1 ||
		cfg.GC.MutationThreshold != 9 || cfg.GC.ScheduleDelay != duration(3*time.Second) || cfg.GC.PauseThreshold != 0.02 {
		t.Errorf("%+v", cfg)
	}
	if log, err := cfg.Logger(); err != nil || log == nil {
		t.Error(err)
	}
	want := []string{"btrfs", "oom_score", `plugins."io.containerd.grpc.v1.cri"`, "ttrpc.gid"}
	if len(cfg.Warnings()) != len(want) {
		t.Errorf("%d warnings, want %d: %q", len(cfg.Warnings()), len(want), cfg.Warnings())
	}
	for _, text := range want {
		if !slices.ContainsFunc(cfg.Warnings(), func(w string) bool { return strings.Contains(w, text) }) {
			t.Errorf("no warning about %s: %q", text, cfg.Warnings())
		}
	}
}

func TestLoad_ContainerdFile_UnknownSettingsWarn(t *testing.T) {
	for text, warns := range map[string]string{
		"version = 3\nroot = 5":                                              "root",
		"version = 3\ngrpc = 1":                                              "grpc",
		"[debug]\nlevel = \"loud\"":                                          "debug.level",
		"[debug]\nlevel = 3":                                                 "debug.level",
		"version = 2\n[grpc]\ngid = -1":                                      "grpc.gid",
		"version = 2\n[grpc]\ntcp_address = \":1\"":                          "grpc.tcp_address",
		"version = 2\ndisabled_plugins = 1":                                  "disabled_plugins",
		"version = 2\nnews = true":                                           "news",
		"version = 2\n[plugins.\"io.containerd.gc.v1.scheduler\"]\nnews = 1": "scheduler",
		"version = 2\n[plugins.\"io.containerd.gc.v1.scheduler\"]\npause_threshold = 0.9": "pause_threshold",
		"version = 2\n[proxy_plugins.x]\nnews = true":                                     "proxy_plugins",
	} {
		cfg, err := load(t, text)
		if err != nil || len(cfg.Warnings()) != 1 || !strings.Contains(cfg.Warnings()[0], warns) {
			t.Errorf("%q: %v, %q", text, err, cfg.Warnings())
		}
	}
}

func TestLoad_ContainerdDefault(t *testing.T) {
	out, err := exec.Command("containerd", "config", "default").Output()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := load(t, string(out))
	if err != nil || cfg.Root != "/var/lib/containerd" || cfg.Address != "/run/containerd/containerd.sock" {
		t.Fatalf("%v, %+v", err, cfg)
	}
	for _, w := range cfg.Warnings() {
		if strings.Contains(w, "grpc.") && !strings.Contains(w, "plugins") {
			t.Errorf("warning about a default: %s", w)
		}
	}
}

func TestWrite_LoadReadsTheSame(t *testing.T) {
	cfg := Default()
	var text bytes.Buffer
	if err := cfg.Write(&text); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	back := Default()
	if err := back.Load(path, true); err != nil {
		t.Fatal(err)
	}
	if err := back.Write(&again); err != nil || again.String() != text.String() {
		t.Fatalf("%v\n%s\n%s", err, text.String(), again.String())
	}
}

func FuzzContainerdsFile(f *testing.F) {
	f.Add("version = 2\n[grpc]\ngid = 3")
	f.Add("[plugins.\"io.containerd.gc.v1.scheduler\"]\nstartup_delay = \"1s\"")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(path, []byte("version = 2\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := Default()
		if err := cfg.Load(path, true); err != nil && !strings.Contains(err.Error(), "toml") {
			t.Fatal(err)
		}
		if err := cfg.GC.check(); err != nil {
			t.Fatal(err)
		}
	})
}
