package api

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/integration/harness"
)

func TestAccess_UsersAreLimitedToNamespaces(t *testing.T) {
	t.Parallel()
	const free, limited, group = 4001, 4002, 4003
	base, err := os.MkdirTemp("", "cleat-it")
	harness.Must(t, err)
	harness.Must(t, os.Chmod(base, 0o711))
	harness.Must(t, os.Chmod(harness.Binaries(), 0o711))
	config := filepath.Join(base, "config.toml")
	harness.Must(t, os.WriteFile(config, []byte(fmt.Sprintf("version = 1\ngroup = %d\n[namespace_access]\n%d = [\"mine\"]\n", group, limited)), 0o600))
	d := harness.StartAt(t, base, "--config", config)
	d.Cleat("namespace", "create", "mine")
	d.Cleat("namespace", "create", "theirs")
	for _, sock := range []string{d.Address, d.Address + ".ttrpc"} {
		var st unix.Stat_t
		harness.Must(t, unix.Stat(sock, &st))
		if st.Mode&0o777 != 0o660 || st.Uid != 0 || st.Gid != group {
			t.Errorf("%s: mode %o, %d:%d", sock, st.Mode&0o777, st.Uid, st.Gid)
		}
	}
	as := func(uid, gid uint32, name string, args ...string) (string, error) {
		t.Helper()
		var out bytes.Buffer
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env = append(os.Environ(), "CLEAT_ADDRESS="+d.Address, "CONTAINERD_ADDRESS="+d.Address)
		cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &out, "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
		err := cmd.Run()
		return out.String(), err
	}
	cleat := harness.Binary("cleat")
	for _, client := range [][]string{{"ctr", "-n"}, {cleat, "--namespace"}} { // gRPC, ttrpc
		ls := []string{"containers", "ls"}
		if client[0] == cleat {
			ls = []string{"ps"}
		}
		in := func(ns string) []string { return append([]string{client[1], ns}, ls...) }
		if out, err := as(limited, group, client[0], in("mine")...); err != nil {
			t.Errorf("%s in an allowed namespace: %v: %s", client[0], err, out)
		}
		if out, err := as(limited, group, client[0], in("theirs")...); err == nil || !strings.Contains(out, "not accessible to user") {
			t.Errorf("%s in another namespace: %v: %s", client[0], err, out)
		}
		if out, err := as(free, group, client[0], in("theirs")...); err != nil {
			t.Errorf("%s of another user: %v: %s", client[0], err, out)
		}
		if out, err := as(free, free, client[0], in("theirs")...); err == nil {
			t.Errorf("%s of a user outside the group: %s", client[0], out)
		}
	}
	if out, err := as(limited, group, "ctr", "namespaces", "ls", "-q"); err != nil || out != "mine\n" {
		t.Errorf("namespaces: %v: %q", err, out)
	}
	if out, err := as(limited, group, "ctr", "namespaces", "label", "theirs", "a=b"); err == nil {
		t.Errorf("label of another namespace: %s", out)
	}
	if out, err := as(limited, group, cleat, "gc"); err == nil {
		t.Errorf("gc: %s", out)
	}
	d.Eventually("peers are logged", func() error {
		if !strings.Contains(d.Log(), fmt.Sprintf("uid=%d gid=%d", limited, group)) {
			return os.ErrNotExist
		}
		return nil
	})
}
