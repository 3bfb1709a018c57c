package main

import (
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// completions returns the names offered for the last of the words, and the directive for the shell.
func completions(t *testing.T, env map[string]string, words ...string) (names []string, directive string) {
	t.Helper()
	got := invoke(t, env, "", append([]string{"__completeNoDesc"}, words...)...)
	lines := strings.Split(strings.TrimSuffix(got.out, "\n"), "\n")
	if got.code != 0 || len(lines) == 0 {
		t.Fatalf("complete %q: %+v", words, got)
	}
	return lines[:len(lines)-1], lines[len(lines)-1]
}

// Directives of completions: whether the shell also offers files or directories.
const (
	files   = ":0"
	noFiles = ":4"
	dirs    = ":16"
)

func TestCompletion(t *testing.T) {
	d := newDaemon(t)
	short := strings.Repeat("a", 12)
	for line, want := range map[string]string{
		"pul":                       "pull " + noFiles,
		"image l":                   "label ls " + noFiles,
		"help image ex":             "export " + noFiles,
		"completion ":               "bash zsh fish " + noFiles,
		"stop ":                     short + " " + noFiles,
		"rm ":                       short + " one " + noFiles,
		"rm one ":                   short + " " + noFiles,
		"rm o":                      "one " + noFiles,
		"logs one ":                 noFiles,
		"commit one ":               noFiles,
		"exec ":                     short + " " + noFiles,
		"exec one ":                 files,
		"run ":                      "busybox " + noFiles,
		"run -it -e A=1 b":          "busybox " + noFiles,
		"run busybox ":              files,
		"run --rootfs ":             dirs,
		"run --storage-s":           "--storage-size " + noFiles,
		"run busybox --storage-s":   files,
		"run --network ":            "none host ns: " + noFiles,
		"run --name ":               noFiles,
		"run --env-file ":           files,
		"image rm ":                 "busybox " + noFiles,
		"rmi b":                     "busybox " + noFiles,
		"image tag busybox ":        noFiles,
		"image import ":             files,
		"image mount busybox ":      files,
		"ps --format ":              "table json " + noFiles,
		"kill --signal=":            "HUP INT QUIT KILL USR1 USR2 TERM CONT STOP WINCH " + noFiles,
		"image ls --filter ":        noFiles,
		"doctor --root ":            dirs,
		"ps ":                       noFiles,
		"--namespace blue image rm": "rm " + noFiles,
	} {
		got, directive := completions(t, d.env(), strings.Split(line, " ")...)
		if all := strings.Join(append(got, directive), " "); all != want {
			t.Errorf("%q: %q, want %q", line, all, want)
		}
	}
}

func TestCompletion_DescribesContainers(t *testing.T) {
	d := newDaemon(t)
	if got := invoke(t, d.env(), "", "__complete", "rm", "o"); got.out != "one\tstopped\n:4\n" {
		t.Errorf("%+v", got)
	}
}

func TestCompletion_DaemonDoesNotAnswer_IsSilent(t *testing.T) {
	silent := filepath.Join(t.TempDir(), "c.sock")
	l, err := net.Listen("unix", silent+".ttrpc")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for name, address := range map[string]string{"missing": "/none/c.sock", "silent": silent} {
		for _, words := range [][]string{{"rm", ""}, {"run", "--snapshotter", ""}} {
			got, directive := completions(t, map[string]string{"CLEAT_ADDRESS": address}, words...)
			if len(got) > 0 || directive != noFiles {
				t.Errorf("%s: %q: %q %s", name, words, got, directive)
			}
		}
	}
}

func TestShortName(t *testing.T) {
	for name, want := range map[string]string{
		"docker.io/library/busybox:latest": "busybox:latest",
		"docker.io/some/box:1":             "some/box:1",
		"docker.io/library/deep/er:1":      "library/deep/er:1",
		"docker.io/my.org/box:1":           "docker.io/my.org/box:1",
		"docker.io/localhost/box:1":        "docker.io/localhost/box:1",
		"ghcr.io/library/box:1":            "ghcr.io/library/box:1",
		"busybox":                          "busybox",
	} {
		if got := shortName(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func TestCompletionScripts(t *testing.T) {
	for shell, word := range map[string]string{"bash": "complete -o default -F __start_cleat cleat", "zsh": "#compdef cleat", "fish": "complete -c cleat"} {
		got := invoke(t, nil, "", "completion", shell)
		if got.code != 0 || got.err != "" || !strings.Contains(got.out, word) {
			t.Errorf("%s: code %d, %s", shell, got.code, got.err)
		}
		interpreter, err := exec.LookPath(shell)
		if err != nil {
			t.Fatal(err)
		}
		check := exec.CommandContext(t.Context(), interpreter, "-n")
		check.Stdin = strings.NewReader(got.out)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", shell, err, out)
		}
	}
	for _, args := range [][]string{{"completion"}, {"completion", "tcsh"}, {"completion", "bash", "zsh"}} {
		got := invoke(t, nil, "", args...)
		if got.code != 1 || got.out != "" || !strings.HasSuffix(got.err, "hint: run 'cleat completion --help' for usage\n") {
			t.Errorf("%q: %+v", args, got)
		}
	}
}
