package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
)

// document is a JSON object of which only some members are looked into; the others pass through
// as they are, also those of spec versions this code does not know.
type document map[string]json.RawMessage

func parseDocument(data []byte) (document, error) {
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fmt.Errorf("OCI spec is not a JSON object: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if d == nil {
		return nil, fmt.Errorf("OCI spec is empty: %w", errdefs.ErrInvalidArgument)
	}
	return d, nil
}

// get decodes a member; one that is missing leaves v as it is.
func (d document) get(name string, v any) error {
	raw, ok := d[name]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("OCI spec member %s: %w: %w", name, err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// set replaces a member.
func (d document) set(name string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("OCI spec member %s: %w", name, err)
	}
	d[name] = raw
	return nil
}

// child decodes a member that is an object.
func (d document) child(name string) (document, error) {
	c := document{}
	err := d.get(name, &c)
	if c == nil {
		c = document{}
	}
	return c, err
}

// placeCgroup puts a client's spec below this daemon's own cgroup, unless this is the host's main
// daemon, so that two daemons never share one. Paths in systemd's form and relative ones are left.
func (s *Service) placeCgroup(spec []byte) ([]byte, error) {
	if s.CgroupParent == defaultCgroupParent {
		return spec, nil
	}
	d, err := parseDocument(spec)
	if err != nil {
		return nil, err
	}
	linux, err := d.child("linux")
	if err != nil {
		return nil, err
	}
	var path string
	if err := linux.get("cgroupsPath", &path); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(path, "/") {
		return spec, nil
	}
	if err := linux.set("cgroupsPath", filepath.Join(s.CgroupParent, path)); err != nil {
		return nil, err
	}
	if err := d.set("linux", linux); err != nil {
		return nil, err
	}
	return json.Marshal(d)
}

const defaultCgroupParent = "/cleat"

// completeSpec fills in what only the daemon knows: root directory, cgroup and user.
func (s *Service) completeSpec(spec []byte, namespace, id, rootfs string, who *identity) ([]byte, error) {
	d, err := parseDocument(spec)
	if err != nil {
		return nil, err
	}
	root, err := d.child("root")
	if err != nil {
		return nil, err
	}
	linux, err := d.child("linux")
	if err != nil {
		return nil, err
	}
	process, err := d.child("process")
	if err != nil {
		return nil, err
	}
	var cgroup string
	if err := linux.get("cgroupsPath", &cgroup); err != nil {
		return nil, err
	}
	if cgroup == "" {
		cgroup = filepath.Join(s.CgroupParent, namespace, id)
	}
	if who != nil {
		if err := setUser(process, who); err != nil {
			return nil, err
		}
	}
	err = errors.Join(
		root.set("path", first(rootfs, "rootfs")), d.set("root", root),
		linux.set("cgroupsPath", cgroup), d.set("linux", linux),
		d.set("process", process),
	)
	if err != nil {
		return nil, err
	}
	return json.Marshal(d)
}

// setUser writes the user into the process, keeping members such as umask.
func setUser(process document, who *identity) error {
	user, err := process.child("user")
	if err != nil {
		return err
	}
	return errors.Join(
		user.set("uid", who.uid), user.set("gid", who.gid), user.set("additionalGids", who.groups),
		process.set("user", user),
	)
}

// removeEmptyCgroups removes the cgroups below this daemon's own that hold nothing any more, and
// then its own. Only while no container can be created.
func (s *Service) removeEmptyCgroups() {
	controllers, err := filepath.Glob("/sys/fs/cgroup/*")
	if err != nil {
		return
	}
	for _, base := range append(controllers, "/sys/fs/cgroup") {
		own := filepath.Join(base, s.CgroupParent)
		namespaces, err := filepath.Glob(filepath.Join(own, "*"))
		if err != nil {
			return
		}
		for _, dir := range append(namespaces, own) {
			if info, err := os.Lstat(dir); err == nil && info.IsDir() {
				_ = os.Remove(dir) // rmdir refuses what is in use, which is the point
			}
		}
	}
}

// specHasUser reports whether a spec's process names a user other than root's bare default.
func specHasUser(spec []byte) bool {
	var v struct {
		Process struct {
			User struct {
				UID            uint32   `json:"uid"`
				GID            uint32   `json:"gid"`
				AdditionalGids []uint32 `json:"additionalGids"`
			} `json:"user"`
		} `json:"process"`
	}
	if err := json.Unmarshal(spec, &v); err != nil {
		return false // completeSpec says what is wrong with it
	}
	u := v.Process.User
	return u.UID != 0 || u.GID != 0 || len(u.AdditionalGids) > 0
}

// specArgs returns the command of a spec's process, for listings.
func specArgs(spec []byte) []string {
	var v struct {
		Process struct {
			Args []string `json:"args"`
		} `json:"process"`
	}
	if err := json.Unmarshal(spec, &v); err != nil {
		return nil
	}
	return v.Process.Args
}
