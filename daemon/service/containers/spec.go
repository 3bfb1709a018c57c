package containers

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/cleatproject/cleat/daemon/service/snapshots"
	"github.com/cleatproject/cleat/internal/rawjson"
	"github.com/cleatproject/cleat/internal/userdb"
)

// parsedSpec is an OCI spec with the members that the daemon looks into decoded, once.
type parsedSpec struct {
	all, root, linux, process rawjson.Object
}

func parseSpec(data []byte) (p parsedSpec, err error) {
	if p.all, err = rawjson.Parse(data); err != nil {
		return p, specError(err)
	}
	for name, into := range map[string]*rawjson.Object{"root": &p.root, "linux": &p.linux, "process": &p.process} {
		if *into, err = p.all.Child(name); err != nil {
			return p, specError(err)
		}
	}
	return p, nil
}

// specError adds to an error what it is about.
func specError(err error) error { return fmt.Errorf("OCI spec: %w", err) }

// hasUser reports whether the process names a user other than root's bare default.
func (p parsedSpec) hasUser() bool {
	var u struct {
		UID            uint32   `json:"uid"`
		GID            uint32   `json:"gid"`
		AdditionalGids []uint32 `json:"additionalGids"`
	}
	err := p.process.Get("user", &u) // setUser says what is wrong with it
	return err == nil && (u.UID != 0 || u.GID != 0 || len(u.AdditionalGids) > 0)
}

// setUser writes the user into the process, keeping members such as umask.
func (p parsedSpec) setUser(who userdb.Identity) error {
	user, err := p.process.Child("user")
	if err != nil {
		return specError(err)
	}
	return errors.Join(
		user.Set("uid", who.UID), user.Set("gid", who.GID), user.Set("additionalGids", who.Groups),
		p.process.Set("user", user),
	)
}

// args returns the command of the process, for listings.
func (p parsedSpec) args() (args []string) {
	if p.process.Get("args", &args) != nil {
		return nil // the OCI runtime says what is wrong with it
	}
	return args
}

// complete fills in what only the daemon knows, process attributes, cgroup and root directory, where the spec
// leaves them open, and encodes the spec.
func (p parsedSpec) complete(process ProcessDefaults, ownCgroup, rootfs string) ([]byte, error) {
	var cgroup string
	if err := p.linux.Get("cgroupsPath", &cgroup); err != nil {
		return nil, specError(err)
	}
	if cgroup == "" {
		cgroup = ownCgroup
	}
	err := errors.Join(
		p.root.Set("path", cmp.Or(rootfs, "rootfs")), p.all.Set("root", p.root),
		p.linux.Set("cgroupsPath", cgroup), p.all.Set("linux", p.linux),
		process.fill(p.process), p.all.Set("process", p.process),
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

// ownerLabels returns the labels of the snapshot for a container with the spec: none if that has no user
// namespace, or joins one.
func (p parsedSpec) ownerLabels() (map[string]string, error) {
	labels := make(map[string]string)
	for member, label := range map[string]string{"uidMappings": snapshots.LabelUIDMapping, "gidMappings": snapshots.LabelGIDMapping} {
		var list []struct {
			ContainerID uint32 `json:"containerID"`
			HostID      uint32 `json:"hostID"`
			Size        uint32 `json:"size"`
		}
		if err := p.linux.Get(member, &list); err != nil {
			return nil, specError(err)
		}
		var ranges []string
		for _, m := range list {
			ranges = append(ranges, fmt.Sprintf("%d:%d:%d", m.ContainerID, m.HostID, m.Size))
		}
		if len(ranges) > 0 {
			labels[label] = strings.Join(ranges, ",")
		}
	}
	return labels, nil
}
