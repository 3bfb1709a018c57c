package spec_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatproject/cleat/client/spec"
)

// bundle creates a bundle with busybox as its root file system.
func bundle(t *testing.T, image spec.Image, o spec.Options) string {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "rootfs", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "cat", "grep", "unshare", "id", "touch", "mount", "ls", "hostname", "mknod", "wc"} {
		if err := os.Symlink("busybox", filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := spec.Generate(image, o)
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// run runs a shell command in a container by runc alone and returns its output and exit code.
func run(t *testing.T, image spec.Image, o spec.Options, command string) (string, int) {
	t.Helper()
	o.Args = []string{"/bin/sh", "-c", "exec 2>&1; " + command} // runc copies the two independently, in no order
	dir := bundle(t, image, o)
	id := fmt.Sprintf("cleat-spec-%d-%s", os.Getpid(), filepath.Base(filepath.Dir(dir)))
	cmd := exec.CommandContext(t.Context(), "runc", "--root", filepath.Join(dir, "state"), "run", "--bundle", dir, id)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

func TestGenerate_RuncAcceptsSpec(t *testing.T) {
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "file"), []byte("from the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	bind, err := spec.ParseVolume(host + ":/mnt:ro")
	if err != nil {
		t.Fatal(err)
	}
	tmpfs, err := spec.ParseMount("type=tmpfs,dst=/scratch,tmpfs-size=1m,tmpfs-mode=700")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		image   spec.Image
		opts    spec.Options
		command string
		want    string
		code    int
	}{
		"defaults":           {command: "echo $PATH; echo $$", want: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n1\n"},
		"exit code":          {command: "exit 7", code: 7},
		"hostname":           {opts: spec.Options{Hostname: "mooring"}, command: "hostname; echo $HOSTNAME", want: "mooring\nmooring\n"},
		"image environment":  {image: spec.Image{Env: []string{"A=image", "B=image"}}, opts: spec.Options{Env: []string{"B=mine"}}, command: "echo $A $B", want: "image mine\n"},
		"capabilities":       {command: "grep CapEff /proc/self/status", want: "CapEff:\t00000000a80425fb\n"},
		"dropped":            {opts: spec.Options{CapDrop: []string{"ALL"}, CapAdd: []string{"chown"}}, command: "grep CapEff /proc/self/status", want: "CapEff:\t0000000000000001\n"},
		"filtered":           {command: "grep Seccomp: /proc/self/status; unshare -m true", want: "Seccomp:\t2\nunshare: unshare(0x20000): Operation not permitted\n", code: 1},
		"unfiltered":         {opts: spec.Options{NoSeccomp: true}, command: "grep Seccomp: /proc/self/status", want: "Seccomp:\t0\n"},
		"sys admin":          {opts: spec.Options{CapAdd: []string{"SYS_ADMIN"}}, command: "unshare -m true && echo ok", want: "ok\n"},
		"masked":             {command: "cat /proc/interrupts | wc -c; ls /sys/firmware | wc -l", want: "0\n0\n"},
		"read-only proc":     {command: "echo 1 > /proc/sys/kernel/panic", want: "/bin/sh: can't create /proc/sys/kernel/panic: Read-only file system\n", code: 1},
		"read-only root":     {image: spec.Image{Volumes: map[string]struct{}{"/bin": {}}}, opts: spec.Options{ReadOnly: true}, command: "touch /file; touch /bin/file && /bin/busybox echo volume", want: "touch: /file: Read-only file system\nvolume\n"},
		"bind":               {opts: spec.Options{Mounts: mountsOf(bind)}, command: "cat /mnt/file; touch /mnt/new", want: "from the hosttouch: /mnt/new: Read-only file system\n", code: 1},
		"tmpfs":              {opts: spec.Options{Mounts: mountsOf(tmpfs)}, command: "grep ' /scratch ' /proc/mounts | grep -c size=1024k,mode=700", want: "1\n"},
		"no device":          {command: "mknod /kmem c 1 2 && cat /kmem", want: "cat: can't open '/kmem': Operation not permitted\n", code: 1},
		"no network":         {command: "grep -c : /proc/net/dev", want: "1\n"},
		"cgroup namespace":   {command: "grep -c '/\\.\\.' /proc/self/cgroup; grep memory: /proc/self/cgroup | cat", want: "0\n"},
		"limits":             {opts: spec.Options{Limits: spec.Limits{Memory: 64 << 20, CPUs: 0.5, Pids: 20}}, command: "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/pids/pids.max", want: "67108864\n50000\n20\n"},
		"working directory":  {image: spec.Image{WorkingDir: "/a/b"}, command: "pwd", want: "/a/b\n"},
		"no new privileges":  {opts: spec.Options{NoNewPrivileges: true}, command: "grep NoNewPrivs /proc/self/status", want: "NoNewPrivs:\t1\n"},
		"privileged devices": {opts: spec.Options{Privileged: true}, command: "grep Seccomp: /proc/self/status; touch /sys/fs/cgroup/x 2>&1 | grep -c 'Read-only'", want: "Seccomp:\t0\n0\n", code: 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			out, code := run(t, tt.image, tt.opts, tt.command)
			if tt.want != "" && !strings.HasPrefix(out, tt.want) || code != tt.code {
				t.Errorf("%s: exit %d\n%s\nwant exit %d\n%s", tt.command, code, out, tt.code, tt.want)
			}
		})
	}
}
