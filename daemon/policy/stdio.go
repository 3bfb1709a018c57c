package policy

import (
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/cleatproject/cleat/proto/runcopts"
)

// Stdio checks the destinations of a process's streams: none, or FIFOs of the user. A shim checks the owner again
// once it has opened one.
func (p *Policy) Stdio(stdin, stdout, stderr string) error {
	for _, s := range []struct{ name, uri string }{{"stdin", stdin}, {"stdout", stdout}, {"stderr", stderr}} {
		if s.uri == "" {
			continue
		}
		name := strings.TrimPrefix(s.uri, "fifo://")
		if !strings.HasPrefix(name, "/") || strings.ContainsAny(name, "?#%") {
			return p.Refuse(s.name, "%.200q", s.uri)
		}
		// One answer for all: which paths exist is not public to every user.
		if info, err := os.Lstat(name); err != nil || info.Mode().Type() != fs.ModeNamedPipe || !p.owns(info) {
			return p.Refuse(s.name, "%.200q is not a FIFO of this user", s.uri)
		}
	}
	return nil
}

func (p *Policy) owns(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Uid == p.UID
}

// runcOptions is the supported type of options.
const runcOptions = "containerd.runc.v1.Options"

// Options checks the options of a runtime; unknown ones are refused.
func (p *Policy) Options(typeURL string, value []byte) error {
	if typeURL == "" && len(value) == 0 {
		return nil
	}
	var o runcopts.Options
	if typeURL != runcOptions || o.Unmarshal(value) != nil {
		return p.Refuse("options", "type %.100q", typeURL)
	}
	if o.BinaryName != "" && o.BinaryName != "runc" {
		if err := p.listed("options.binary_name", o.BinaryName); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"no_pivot_root", o.NoPivotRoot},
		{"no_new_keyring", o.NoNewKeyring},
		{"shim_cgroup", o.ShimCgroup != ""},
		{"root", o.Root != ""},
		{"criu_image_path", o.CriuImagePath != ""},
		{"criu_work_path", o.CriuWorkPath != ""},
		{"task_api_address", o.TaskApiAddress != ""},
		{"systemd_cgroup", o.SystemdCgroup},
	} {
		if err := p.none(f.set, "options."+f.name); err != nil {
			return err
		}
	}
	return nil
}

// listed checks a name against Runtimes alone.
func (p *Policy) listed(what, name string) error {
	for _, r := range p.Runtimes {
		if r == name {
			return nil
		}
	}
	return p.Refuse(what, "%.200q", name)
}
