package cli

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

// readline replaces the function of the bash-completion package that splits the line; completion scripts call it.
const readline = `_get_comp_words_by_ref() {
	words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; cur=${words[cword]}; prev=${words[cword-1]}
}
`

// complete presses Tab at the end of a command line in a bash that has loaded cleat's script, and returns the
// candidates.
func complete(d *harness.Daemon, line string) []string {
	d.T.Helper()
	words := strings.Split(line, " ")
	script := readline + `source <(cleat completion bash) || exit 8
COMP_LINE=$1; COMP_POINT=${#1}; COMP_TYPE=9; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($#-1))
compopt() { :; }
__start_cleat && printf '%s\n' "${COMPREPLY[@]}"`
	cmd := exec.CommandContext(d.T.Context(), "bash", append([]string{"-c", script, "bash", line}, words...)...)
	cmd.Env = append(os.Environ(), "CLEAT_ADDRESS="+d.Address, "PATH="+harness.Binaries()+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.T.Fatalf("complete %q: %v: %s", line, err, out)
	}
	var offered []string
	for _, l := range strings.Split(string(out), "\n") {
		if name := strings.Fields(l); len(name) > 0 {
			offered = append(offered, name[0]) // a description follows the name
		}
	}
	slices.Sort(offered)
	return offered
}

func TestCompletion_InBash_OffersObjectsOfDaemon(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("image", "tag", "busybox", "registry.example:5000/some/box:1")
	d.Cleat("namespace", "create", "blue")
	d.Cleat("run", "-d", "--name", "running", "busybox", "sleep", "1000")
	d.Cleat("run", "-d", "--name", "stopped", "busybox", "true")
	d.Cleat("wait", "stopped")
	for line, want := range map[string]string{
		"cleat pul":                       "pull",
		"cleat exec ":                     "running",
		"cleat rm ":                       "running stopped",
		"cleat rm running st":             "stopped",
		"cleat --namespace blue rm ":      "",
		"cleat ps --namespace b":          "blue",
		"cleat namespace rm ":             "blue default",
		"cleat run --snapshotter over":    "overlayfs",
		"cleat image rm registry.exam":    "registry.example:5000/some/box:1",
		"cleat run -it busy":              "busybox:latest",
		"cleat rmi docker.io/":            "docker.io/library/busybox:latest",
		"cleat logs --fol":                "--follow",
		"cleat completion ":               "bash fish zsh",
		"cleat run --network ":            "host none ns:",
		"cleat --address /none/c.sock rm": "rm",
		// Without a daemon there are no candidates and no output.
		"cleat --address /none/c.sock rm ": "",
	} {
		if got := strings.Join(complete(d, line), " "); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// Completion offers snapshotters that work on the host.
func TestCompletion_OffersWorkingSnapshotters(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	out, _, code := d.Try("__completeNoDesc", "run", "--snapshotter", "")
	names := strings.Fields(out)
	if code != 0 || len(names) < 2 || names[len(names)-1] != ":4" {
		t.Fatalf("%d, %s", code, out)
	}
	for _, name := range names[:len(names)-1] {
		d.Cleat("run", "--rm", "--snapshotter", name, "busybox", "true")
	}
	if !slices.Contains(names, "overlayfs") || slices.Contains(names, "btrfs") { // the test's file system is not btrfs
		t.Errorf("snapshotters %q", names)
	}
	d.Cleat("image", "rm", "busybox") // ends the mounts of its layers
}

// A user without access to the socket gets no completions and no error.
func TestCompletion_WithoutAccess_IsSilent(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Cleat("namespace", "create", "blue")
	cleat := harness.Binary("cleat")
	cmd := exec.CommandContext(t.Context(), "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", cleat, "__completeNoDesc", "namespace", "rm", "")
	cmd.Env = append(os.Environ(), "CLEAT_ADDRESS="+d.Address)
	out, err := cmd.Output()
	if got := fmt.Sprint(string(out), err); got != ":4\n<nil>" {
		t.Errorf("%s", got)
	}
}
