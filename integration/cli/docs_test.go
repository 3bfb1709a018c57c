package cli

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/integration/harness"
)

// shownCommand describes how to run a command of the documentation that cannot be run as shown.
type shownCommand struct {
	// line is the command as shown, without its comment.
	line string
	// run replaces it: the same command with values for its placeholders.
	run string
	// before prepares it.
	before string
	// cannot is the reason why it cannot be run.
	cannot string
}

// shownCommands lists the exceptions of each file. All other commands are run as shown.
func shownCommands(d *harness.Daemon, r *harness.Registry) map[string][]shownCommand {
	const build = "it builds and installs cleat, and runs this test"
	const systemd = "the test's daemon is not a service of systemd"
	doctor := fmt.Sprintf("cleat doctor --root %s --state %s", d.Root, d.State)
	digest := "$(cleat image inspect busybox | grep -o -m1 'sha256:[0-9a-f]*')"
	return map[string][]shownCommand{
		"README.md": {
			{line: "make run", cannot: build},
			{line: "make test", cannot: build},
			{line: "make install", cannot: build},
			{line: "cleatd &", cannot: "the test's daemon runs in its place"},
			{line: "cleat exec -it web sh", run: `echo exit | script -qec "cleat exec -it web sh" /dev/null`},
		},
		"docs/start.md": {
			{line: "make install", cannot: build},
			{line: "systemctl enable --now cleatd", cannot: systemd},
			{line: "systemctl restart cleatd", cannot: systemd},
			{line: "cleat image rm busybox", before: "cleat rm --force web"},
			{line: "cleat pull --user me registry.example/team/app:1 < password-file", before: "echo secret > password-file"},
			{line: "ctr --address /run/cleat/cleat.sock images ls", run: "ctr --address $CLEAT_ADDRESS images ls | grep team/app"},
			{
				line:   "ctr --address /run/cleat/cleat.sock run --rm docker.io/library/busybox:latest first echo hello",
				before: "cleat pull busybox", run: "ctr --address $CLEAT_ADDRESS run --rm docker.io/library/busybox:latest first echo hello | grep hello",
			},
		},
		"docs/operate.md": {
			{line: "make install", cannot: build},
			{line: "make uninstall", cannot: build},
			{line: "cleat stop $(cleat ps --quiet)", before: "cleat run --detach busybox sh -c 'trap exit TERM; while :; do sleep 0.1; done'"},
			{line: "cleat stop $(cleat ps --quiet)", before: "cleat run --detach busybox sh -c 'trap exit TERM; while :; do sleep 0.1; done'"},
			{line: "systemctl restart cleatd", cannot: systemd},
			{line: "systemctl restart cleatd", cannot: systemd},
			{line: "systemctl stop cleatd", cannot: systemd},
			{line: "systemctl start cleatd", cannot: systemd},
			{line: "systemctl disable --now cleatd", cannot: systemd},
			{line: "cp -a /var/lib/cleat /backup/cleat", cannot: "it needs the daemon stopped; TestBackup_Restored_HasContainersAndImages does it"},
			{line: "rm -rf /run/cleat /var/lib/cleat /etc/cleat", cannot: "it would remove a cleat that is installed"},
			{line: "cleat doctor", run: doctor},
		},
		"docs/images.md": {
			{line: "cleat commit CONTAINER IMAGE", run: "cleat commit web web:1"},
			{line: "cleat image convert --zstd IMAGE NAME", run: "cleat image convert --zstd busybox zstd:1"},
			{line: "cleat image convert --gzip --docker --platform linux/arm64 IMAGE NAME", run: "cleat image convert --gzip --docker --platform linux/arm64 ghcr.io/owner/app:1.2 other:1"},
			{line: "cleat image mount IMAGE DIRECTORY", before: "mkdir dir", run: "cleat image mount busybox dir && cleat image unmount dir"},
			{line: "cleat image mount --rw IMAGE DIRECTORY", run: "cleat image mount --rw busybox dir"},
			{line: "cleat image unmount DIRECTORY", run: "cleat image unmount dir"},
			{line: "cleat image export -o FILE IMAGE...", run: "cleat image export -o file.tar busybox web:1"},
			{line: "cleat image import FILE", run: "cleat image import file.tar"},
			{line: "cleat image usage [IMAGE...]", run: "cleat image usage && cleat image usage busybox"},
			{line: "cleat image tag IMAGE NAME", run: "cleat image tag busybox name:1"},
			{line: "cleat image label IMAGE KEY=VALUE KEY=", run: "cleat image label busybox key=value other="},
			{line: "cleat image ls --digests -f 'labels.KEY==VALUE'", run: "cleat image ls --digests -f 'labels.key==value' | grep busybox"},
			{line: "cleat image referrers [--artifact-type TYPE] REFERENCE", run: "cleat image referrers ghcr.io/owner/app:1.2"},
		},
		"docs/registries.md": {
			{line: "cleat pull localhost:5000/app@sha256:...", run: "cleat pull localhost:5000/app@" + r.Digest("app:1")},
			{line: "cleat push localhost:5000/app:1 app", before: "cleat image tag busybox app"},
		},
		"docs/storage.md": {
			{line: "cleat doctor", run: doctor},
			{line: "systemctl stop cleatd", cannot: systemd},
			{line: "cleat doctor --repair", cannot: "it needs the daemon stopped; TestDoctor_HealthyHost_FindsNothing runs it"},
			{line: "systemctl start cleatd", cannot: systemd},
			{line: "cleat why sha256:60fcac...", run: "cleat why " + digest},
		},
	}
}

// notRun is the number of commands of the documentation that cannot be run. A further one needs a reason in
// shownCommands.
const notRun = 19

var (
	commandLine = regexp.MustCompile(`^(cleat|cleatd|make|systemctl|ctr|dockerd?|nerdctl|skopeo|sudo|curl|go|mkdir|cp|rm|apt-get) `)
	inlineCode  = regexp.MustCompile("`(cleat\\s[^`]*)`")
)

// codeLines returns the commands in the blocks of code of a page, without their comments.
func codeLines(t *testing.T, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	harness.Must(t, err)
	defer func() { _ = f.Close() }()
	var out []string
	fenced := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
			continue
		}
		if !fenced && !strings.HasPrefix(line, "    ") {
			continue
		}
		line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
		if line = strings.TrimSpace(line); commandLine.MatchString(line + " ") {
			out = append(out, line)
		}
	}
	return out
}

// pages returns the README and the pages of docs.
func pages(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob("../../docs/*.md")
	harness.Must(t, err)
	return append([]string{"../../README.md"}, list...)
}

// Every command in README and docs is run, against a registry on loopback, or listed with the reason why it cannot be
// run.
func TestDocumentation_CommandsWork(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	certs := t.TempDir()
	for _, name := range []string{"docker.io", "ghcr.io", "localhost:5000", "registry.example"} {
		harness.Must(t, os.MkdirAll(filepath.Join(certs, name), 0o755))
		harness.Must(t, os.WriteFile(filepath.Join(certs, name, "hosts.toml"), fmt.Appendf(nil, "server = \"http://%s\"\n", r.Host), 0o600))
	}
	config := filepath.Join(t.TempDir(), "config.toml")
	harness.Must(t, os.WriteFile(config, fmt.Appendf(nil, "version = 1\nregistry_config_path = %q\n", certs), 0o600))
	d := harness.Start(t, "--config", config)
	d.Busybox()
	d.Cleat("push", r.Host+"/library/busybox:latest", "busybox")
	d.Cleat("push", r.Host+"/app:1", "busybox")
	d.Cleat("push", r.Host+"/team/app:1", "busybox")
	r.Image("owner/app", "1.2", ocispec.Platform{OS: "linux", Architecture: "arm64"}, layerOf(t))
	cannot := 0
	for _, page := range pages(t) {
		name, err := filepath.Rel("../..", page)
		harness.Must(t, err)
		s := &session{d: d, dir: t.TempDir(), listed: shownCommands(d, r)[name]}
		s.sh("cleat image export -o busybox.tar busybox")
		if name != "README.md" {
			s.sh("cleat pull --quiet --platform linux/arm64 --no-unpack ghcr.io/owner/app:1.2 && cleat run --detach --name web busybox sleep 1000")
		}
		for _, line := range codeLines(t, page) {
			s.command(name, line)
		}
		for _, c := range s.listed {
			t.Errorf("no %[2]q in %[1]s", name, c.line)
		}
		cannot += s.cannot
		s.sh(`ids=$(cleat ps --all --quiet); [ -z "$ids" ] || cleat rm --force $ids; cleat pull --quiet busybox`)
	}
	if cannot != notRun {
		t.Errorf("%d commands are not run, want %d", cannot, notRun)
	}
}

// layerOf is a layer with one file.
func layerOf(t *testing.T) []byte {
	return harness.TarOf(t, []harness.File{{Name: "file", Body: "here\n", Mode: 0o644}})
}

// session runs the commands of a page.
type session struct {
	d      *harness.Daemon
	dir    string
	listed []shownCommand
	cannot int
}

func (s *session) command(page, line string) {
	s.d.T.Helper()
	run := line
	at := slices.IndexFunc(s.listed, func(c shownCommand) bool { return c.line == line })
	if at >= 0 {
		c := s.listed[at]
		s.listed = slices.Delete(s.listed, at, at+1)
		if c.cannot != "" {
			s.cannot++
			return
		}
		if c.before != "" {
			s.sh(c.before)
		}
		if c.run != "" {
			run = c.run
		}
	}
	if out, err := s.try(run); err != nil {
		s.d.T.Errorf("%s: %s: %v: %s", page, run, err, out)
	}
}

// sh runs a command, which must succeed.
func (s *session) sh(command string) {
	s.d.T.Helper()
	if out, err := s.try(command); err != nil {
		s.d.T.Fatalf("%s: %v: %s", command, err, out)
	}
}

func (s *session) try(command string) (string, error) {
	cmd := exec.CommandContext(s.d.T.Context(), "sh", "-c", command)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "CLEAT_ADDRESS="+s.d.Address, "PATH="+harness.Binaries()+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Commands named in a text exist, with their flags.
func TestDocumentation_NamedCommandsExist(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	seen := 0
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		harness.Must(t, err)
		for _, m := range inlineCode.FindAllStringSubmatch(string(text), -1) {
			words := strings.Fields(m[1])[1:]
			if words[0] == "COMMAND" || words[0] == "help" {
				continue
			}
			seen++
			help, ok := "", false
			for n := min(2, len(words)); n > 0 && !ok; n-- {
				out, _, code := d.Try(append([]string{"help"}, words[:n]...)...)
				help, ok = out, code == 0 && !strings.HasPrefix(words[n-1], "-")
			}
			if !ok {
				t.Errorf("%s: unknown command %q", page, m[1])
				continue
			}
			for _, w := range words {
				flag, _, _ := strings.Cut(strings.Trim(w, "[]."), "=")
				if strings.HasPrefix(flag, "--") && !strings.Contains(help, flag) {
					t.Errorf("%s: %q has no flag %s", page, m[1], flag)
				}
			}
		}
	}
	if seen < 15 {
		t.Errorf("only %d commands found", seen)
	}
}

// doctor finds no problem of a daemon with default settings, running or stopped.
func TestDoctor_HealthyHost_FindsNothing(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("run", "--rm", "busybox", "true")
	look := func(flags ...string) {
		t.Helper()
		args := append([]string{"--root", d.Root, "--state", d.State, "--address", d.Address, "doctor"}, flags...)
		out, err := exec.CommandContext(t.Context(), harness.Binary("cleatd"), args...).CombinedOutput()
		if err != nil || strings.Contains(string(out), "finding:") || !strings.Contains(string(out), "nothing is wrong") {
			t.Errorf("%v: %s", err, out)
		}
	}
	look()
	harness.Must(t, os.Chmod(d.Address, 0o666))
	out, err := exec.CommandContext(t.Context(), harness.Binary("cleatd"), "--root", d.Root, "--state", d.State,
		"--address", d.Address, "doctor").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "chmod 660 "+d.Address) {
		t.Errorf("a world-writable socket: %v: %s", err, out)
	}
	harness.Must(t, os.Chmod(d.Address, 0o660))
	d.Stop()
	look()
	look("--repair")
	d.Begin()
}

// cleat finds the ttrpc socket of a daemon that has a custom name for it, and accepts it by name.
func TestTTRPCSocket_CustomName_IsFound(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "cleat-it")
	harness.Must(t, err)
	t.Cleanup(func() { harness.Must(t, os.RemoveAll(dir)) })
	socket := filepath.Join(dir, "other.sock")
	d := harness.Start(t, "--ttrpc-address", socket)
	d.Cleat("ps")
	d.Restart() // over the existing link
	d.Cleat("ps")
	d.Cleat("--ttrpc-address", socket, "ps")
	if _, stderr, code := d.Try("--ttrpc-address", socket+"x", "ps"); code == 0 || !strings.Contains(stderr, "is cleatd running?") {
		t.Errorf("a socket that does not exist: code %d, %s", code, stderr)
	}
	d.Stop()
	if _, err := os.Lstat(d.Address + ".ttrpc"); !os.IsNotExist(err) {
		t.Errorf("the link still exists: %v", err)
	}
	d.Begin()
}

func TestVersion_ShowsClientAndDaemon(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	line := regexp.MustCompile(`^(client|server)  \S+  containerd \d+\.\d+\.\d+(  revision [0-9a-f]+)?$`)
	lines := strings.Split(d.Cleat("version"), "\n")
	for _, l := range lines {
		if !line.MatchString(l) {
			t.Errorf("line %q", l)
		}
	}
	if len(lines) != 2 {
		t.Errorf("%d lines", len(lines))
	}
}

func TestEvents_ShowFieldsOfImages(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("image", "tag", "busybox", "other:1")
	d.Cleat("image", "label", "busybox", "key=value")
	d.Cleat("image", "rm", "other:1")
	cmd := d.Command("events", "--from-start", "--filter", `topic~="^/images/"`)
	stdout, err := cmd.StdoutPipe()
	harness.Must(t, err)
	harness.Must(t, cmd.Start())
	defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
	want := []string{`/images/create {"name":"docker.io/library/other:1"}`, `/images/update`, `/images/delete {"name":"docker.io/library/other:1"}`}
	for lines := bufio.NewScanner(stdout); len(want) > 0 && lines.Scan(); {
		if strings.Contains(lines.Text(), `"type":`) {
			t.Errorf("without fields: %s", lines.Text())
		}
		if strings.Contains(lines.Text(), want[0]) {
			want = want[1:]
		}
	}
	if len(want) > 0 {
		t.Errorf("missing: %q", want)
	}
}
