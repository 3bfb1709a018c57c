// Package guest runs a test in a kernel of its own, for features that the host's kernel may lack, and
// for settings that would affect the whole host.
//
// The kernel is user-mode Linux (Debian's user-mode-linux), an ordinary program; on processors that it does
// not support, Debian's cloud kernel in an emulated machine, which is slower. It sees the host's files below its
// root, has file systems, modules, processes and mounts of its own, and ends with the test. Its TMPDIR is in
// memory.
package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	shell  = "/bin/busybox"
	inside = "CLEAT_TEST_GUEST"
	// limit is the time limit of a test in the guest.
	limit = 10 * time.Minute
)

// machine runs a guest's kernel.
type machine interface {
	// modules are commands of the guest's first process that load the kernel's modules.
	modules(overlay string) (string, error)
	// boot runs the guest, whose first process is dir/init, to its end and returns what it printed.
	boot(ctx context.Context, dir string) ([]byte, error)
}

// newMachine selects a machine by the host's processor.
func newMachine() (machine, error) {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil, err
	}
	if bytes.Contains(info, []byte("amx_tile")) {
		return newEmulator()
	}
	return userMode{}, nil
}

// script is the guest's first process.
const script = `#!/bin/busybox sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t tmpfs tmpfs /run
$b mkdir -m 1777 /run/t
{{modules}}
$b mkdir -p /dev/shm && $b mount -t tmpfs tmpfs /dev/shm
$b mount -t cgroup2 cgroup2 /sys/fs/cgroup
$b ip link set lo up
export TMPDIR=/run/t # short, for the paths of sockets
cd {{cwd}}
{{command}} >{{dir}}/output 2>&1
echo $? >{{dir}}/status
$b poweroff -f
`

// Options change the guest. The zero value is right.
type Options struct {
	// Overlay are parameters of the overlay module, such as metacopy=on.
	Overlay string
	// Env are additional variables of the test there, NAME=VALUE.
	Env []string
}

// Inside returns true in the guest, where the test is to do its work. On the host it runs the test in
// a guest, reports the result, and returns false: the test then has to return. It has to be called first, in
// a test that is not a subtest.
func Inside(t *testing.T, o Options) bool {
	t.Helper()
	if os.Getenv(inside) != "" {
		return true
	}
	dir := t.TempDir()
	m, err := newMachine()
	if err != nil {
		t.Fatal(err)
	}
	modules, err := m.modules(o.Overlay)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := program(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	command := inside + "=1"
	for _, v := range o.Env {
		name, value, _ := strings.Cut(v, "=")
		command += " " + name + "=" + quote(value)
	}
	command += " " + quote(exe) + " -test.v -test.count=1 -test.run=" + quote("^"+t.Name()+"$")
	text := strings.NewReplacer("{{dir}}", dir, "{{cwd}}", quote(cwd), "{{command}}", command, "{{modules}}", modules).Replace(script)
	if err := os.WriteFile(filepath.Join(dir, "init"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	console, err := m.boot(t.Context(), dir)
	output, _ := os.ReadFile(filepath.Join(dir, "output")) // missing only if the status is
	status, serr := os.ReadFile(filepath.Join(dir, "status"))
	if serr != nil { // how the kernel ends after the test does not matter
		t.Fatalf("run in a guest: %v\n%s%s", errors.Join(err, serr), console, output)
	}
	if strings.TrimSpace(string(status)) != "0" || !strings.Contains(string(output), "--- PASS: "+t.Name()+" ") {
		t.Fatalf("in a guest, exit %s:\n%s\n%s", strings.TrimSpace(string(status)), output, console)
	}
	t.Logf("in a guest:\n%s", output)
	return false
}

// program returns the path of the test's program: this one, or if that does not run in a guest, one
// built of the package in the working directory.
func program(ctx context.Context, dir string) (string, error) {
	if !raced {
		return os.Executable()
	}
	exe := filepath.Join(dir, "test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", exe, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the test for the guest: %w\n%s", err, out)
	}
	return exe, nil
}

// quote makes a text one word of the shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
