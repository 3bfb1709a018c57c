package service

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/userdb"
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

// parsedSpec is an OCI spec with the members that the daemon looks into decoded, once.
type parsedSpec struct {
	all, root, linux, process document
}

func parseSpec(data []byte) (p parsedSpec, err error) {
	if p.all, err = parseDocument(data); err != nil {
		return p, err
	}
	for name, into := range map[string]*document{"root": &p.root, "linux": &p.linux, "process": &p.process} {
		if *into, err = p.all.child(name); err != nil {
			return p, err
		}
	}
	return p, nil
}

// hasUser reports whether the process names a user other than root's bare default.
func (p parsedSpec) hasUser() bool {
	var u struct {
		UID            uint32   `json:"uid"`
		GID            uint32   `json:"gid"`
		AdditionalGids []uint32 `json:"additionalGids"`
	}
	err := p.process.get("user", &u) // setUser says what is wrong with it
	return err == nil && (u.UID != 0 || u.GID != 0 || len(u.AdditionalGids) > 0)
}

// setUser writes the user into the process, keeping members such as umask.
func (p parsedSpec) setUser(who userdb.Identity) error {
	user, err := p.process.child("user")
	if err != nil {
		return err
	}
	return errors.Join(
		user.set("uid", who.UID), user.set("gid", who.GID), user.set("additionalGids", who.Groups),
		p.process.set("user", user),
	)
}

// args returns the command of the process, for listings.
func (p parsedSpec) args() (args []string) {
	if p.process.get("args", &args) != nil {
		return nil // the OCI runtime says what is wrong with it
	}
	return args
}

// completeSpec fills in what only the daemon knows, root directory and cgroup, and encodes the spec.
func (s *Service) completeSpec(p parsedSpec, namespace, id, rootfs string) ([]byte, error) {
	var cgroup string
	if err := p.linux.get("cgroupsPath", &cgroup); err != nil {
		return nil, err
	}
	if cgroup == "" {
		cgroup = filepath.Join(s.CgroupParent, namespace, id)
	}
	err := errors.Join(
		p.root.set("path", cmp.Or(rootfs, "rootfs")), p.all.set("root", p.root),
		p.linux.set("cgroupsPath", cgroup), p.all.set("linux", p.linux),
		s.ProcessDefaults.fill(p.process), p.all.set("process", p.process),
	)
	if err != nil {
		return nil, err
	}
	return json.Marshal(p.all)
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
