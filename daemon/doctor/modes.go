package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cleatproject/cleat/daemon"
)

// audited is a path and the mode that it may have at most.
type audited struct {
	path string
	most os.FileMode
}

// modes checks that only root can read and write what the daemon keeps.
func (d *doctor) modes() error {
	list := []audited{
		{d.cfg.Root, 0o700},
		{filepath.Join(d.cfg.Root, "content"), 0o700},
		{filepath.Join(d.cfg.Root, "snapshots"), 0o700},
		{filepath.Join(d.cfg.Root, "logs"), 0o700},
		{filepath.Join(d.cfg.Root, "events"), 0o700},
		{d.database, 0o600},
		{d.cfg.State, 0o711},
		{d.cfg.Address, daemon.SocketMode},
		{d.cfg.TTRPCAddress, daemon.SocketMode},
	}
	bundles, err := filepath.Glob(filepath.Join(d.cfg.State, "io.containerd.runtime.v2.task", "*", "*"))
	if err != nil {
		return fmt.Errorf("list bundles: %w", err)
	}
	for _, b := range bundles {
		list = append(list, audited{b, 0o711})
	}
	before := d.standing + d.repaired
	for _, a := range list {
		if err := d.mode(a); err != nil {
			return err
		}
	}
	if err := errors.Join(d.socketGroup(d.cfg.Address), d.socketGroup(d.cfg.TTRPCAddress)); err != nil {
		return err
	}
	if d.standing+d.repaired == before {
		d.fine(fmt.Sprintf("modes and owners of %d paths", len(list)))
	}
	return nil
}

// socketGroup checks that a socket belongs to the group of the configuration.
func (d *doctor) socketGroup(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("check group: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Gid) != d.cfg.Group {
		d.finding(fmt.Sprintf("%s belongs to group %d, the configuration says %d", path, st.Gid, d.cfg.Group),
			"members of another group can use cleatd, which makes them equivalent to root", "restart cleatd, which sets the group of its sockets")
	}
	return nil
}

func (d *doctor) mode(a audited) error {
	info, err := os.Lstat(a.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("check mode: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		d.finding(fmt.Sprintf("%s belongs to user %d", a.path, st.Uid), "that user can change what root runs", "find out who did it, then chown it")
	}
	have := info.Mode().Perm()
	if have&^a.most == 0 {
		return nil
	}
	what := fmt.Sprintf("%s has the mode %04o, more than %04o", a.path, have, a.most)
	if !d.repair {
		d.finding(what, "users other than root can reach into containers, or into what they are made of", fmt.Sprintf("chmod %o %s", have&a.most, a.path))
		return nil
	}
	if err := os.Chmod(a.path, have&a.most); err != nil {
		return fmt.Errorf("repair mode: %w", err)
	}
	d.fixed(what, fmt.Sprintf("set to %04o", have&a.most))
	return nil
}
