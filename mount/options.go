package mount

import (
	"strings"

	"golang.org/x/sys/unix"
)

// options are a Mount's options, sorted by their consumer.
type options struct {
	// flags are MS_* for mount(2), without bind and propagation.
	flags uintptr
	// bind and recursive mark a bind, and one of the whole tree.
	bind, recursive bool
	// recursiveRO makes every mount of a bound tree read-only.
	recursiveRO bool
	// loop marks that the source is a file, to be mounted by a loop device.
	loop bool
	// ids, of a bind or an overlay, map the owners of files.
	ids idmap
	// propagation are MS_* flags, each for a call of its own.
	propagation []uintptr
	// data are the options for the file system, "key" or "key=value".
	data []string
	// mayLackSetattr is set if a bind could not be restricted before it was attached,
	// because the kernel has no mount_setattr.
	mayLackSetattr bool
}

func parse(m Mount) (*options, error) {
	o := &options{bind: m.Type == "bind" || m.Type == "rbind", recursive: m.Type == "rbind"}
	for _, opt := range m.Options {
		if strings.IndexByte(opt, 0) >= 0 {
			return nil, invalidf("mount option %q has a NUL byte", opt)
		}
		switch opt {
		case "", "defaults":
			continue
		case "bind":
			o.bind = true
			continue
		case "rbind":
			o.bind, o.recursive = true, true
			continue
		case "rro":
			o.recursiveRO = true
			continue
		case "loop":
			o.loop = true
			continue
		}
		if mapped, err := o.mapping(m.Type, opt); mapped || err != nil {
			if err != nil {
				return nil, err
			}
			continue
		}
		if set, unset, ok := flag(opt); ok {
			o.flags = o.flags&^unset | set
		} else if p, ok := propagation(opt); ok {
			o.propagation = append(o.propagation, p)
		} else {
			o.data = append(o.data, opt)
		}
	}
	if o.bind && o.loop {
		return nil, invalidf("mount option \"loop\" has no meaning for a bind mount")
	}
	if (len(o.ids.uid) == 0) != (len(o.ids.gid) == 0) {
		return nil, invalidf("mount options uidmap and gidmap require each other")
	}
	if o.bind && len(o.data) > 0 {
		return nil, invalidf("mount option %q has no meaning for a bind mount", o.data[0])
	}
	if o.recursiveRO && !o.bind {
		o.flags |= unix.MS_RDONLY
	}
	return o, nil
}

// mapping removes the options uidmap and gidmap of mounts that can be mapped: binds and overlays.
func (o *options) mapping(fsType, opt string) (taken bool, err error) {
	key, value, _ := strings.Cut(opt, "=")
	if !o.bind && fsType != "overlay" {
		return false, nil
	}
	switch key {
	case "uidmap":
		o.ids.uid, err = parseIDMap(value)
	case "gidmap":
		o.ids.gid, err = parseIDMap(value)
	default:
		return false, nil
	}
	return true, err
}

// flag returns the MS_ flags that an option sets and those it clears.
func flag(opt string) (set, unset uintptr, ok bool) {
	const atime = unix.MS_NOATIME | unix.MS_RELATIME | unix.MS_STRICTATIME
	switch opt {
	case "ro":
		return unix.MS_RDONLY, 0, true
	case "rw":
		return 0, unix.MS_RDONLY, true
	case "nosuid":
		return unix.MS_NOSUID, 0, true
	case "suid":
		return 0, unix.MS_NOSUID, true
	case "nodev":
		return unix.MS_NODEV, 0, true
	case "dev":
		return 0, unix.MS_NODEV, true
	case "noexec":
		return unix.MS_NOEXEC, 0, true
	case "exec":
		return 0, unix.MS_NOEXEC, true
	case "noatime":
		return unix.MS_NOATIME, atime, true
	case "relatime":
		return unix.MS_RELATIME, atime, true
	case "strictatime":
		return unix.MS_STRICTATIME, atime, true
	case "atime", "norelatime", "nostrictatime":
		return 0, atime, true
	case "nodiratime":
		return unix.MS_NODIRATIME, 0, true
	case "diratime":
		return 0, unix.MS_NODIRATIME, true
	case "nosymfollow":
		return unix.MS_NOSYMFOLLOW, 0, true
	case "symfollow":
		return 0, unix.MS_NOSYMFOLLOW, true
	case "sync":
		return unix.MS_SYNCHRONOUS, 0, true
	case "async":
		return 0, unix.MS_SYNCHRONOUS, true
	case "dirsync":
		return unix.MS_DIRSYNC, 0, true
	case "lazytime":
		return unix.MS_LAZYTIME, 0, true
	case "nolazytime":
		return 0, unix.MS_LAZYTIME, true
	case "mand":
		return unix.MS_MANDLOCK, 0, true
	case "nomand":
		return 0, unix.MS_MANDLOCK, true
	case "remount":
		return unix.MS_REMOUNT, 0, true
	}
	return 0, 0, false
}

func propagation(opt string) (uintptr, bool) {
	switch opt {
	case "private":
		return unix.MS_PRIVATE, true
	case "rprivate":
		return unix.MS_PRIVATE | unix.MS_REC, true
	case "slave":
		return unix.MS_SLAVE, true
	case "rslave":
		return unix.MS_SLAVE | unix.MS_REC, true
	case "shared":
		return unix.MS_SHARED, true
	case "rshared":
		return unix.MS_SHARED | unix.MS_REC, true
	case "unbindable":
		return unix.MS_UNBINDABLE, true
	case "runbindable":
		return unix.MS_UNBINDABLE | unix.MS_REC, true
	}
	return 0, false
}

func (o *options) dataString() string { return strings.Join(o.data, ",") }

// attrs returns the flags of the mount, as MOUNT_ATTR_*.
func (o *options) attrs() int {
	a := 0
	for _, p := range [...]struct {
		ms   uintptr
		attr int
	}{
		{unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY},
		{unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID},
		{unix.MS_NODEV, unix.MOUNT_ATTR_NODEV},
		{unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC},
		{unix.MS_NOATIME, unix.MOUNT_ATTR_NOATIME},
		{unix.MS_STRICTATIME, unix.MOUNT_ATTR_STRICTATIME},
		{unix.MS_NODIRATIME, unix.MOUNT_ATTR_NODIRATIME},
		{unix.MS_NOSYMFOLLOW, unix.MOUNT_ATTR_NOSYMFOLLOW},
	} {
		if o.flags&p.ms != 0 {
			a |= p.attr
		}
	}
	return a
}

// superFlags returns the flags of the file system, by their fsconfig names.
func (o *options) superFlags() []string {
	var names []string
	for _, p := range [...]struct {
		ms   uintptr
		name string
	}{
		{unix.MS_RDONLY, "ro"},
		{unix.MS_SYNCHRONOUS, "sync"},
		{unix.MS_DIRSYNC, "dirsync"},
		{unix.MS_LAZYTIME, "lazytime"},
		{unix.MS_MANDLOCK, "mand"},
	} {
		if o.flags&p.ms != 0 {
			names = append(names, p.name)
		}
	}
	return names
}
