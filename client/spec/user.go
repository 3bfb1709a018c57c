package spec

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/proto/reason"
)

// maxAccountFile bounds how much of a container's passwd or group file is read: as much as run reads of an image's.
const maxAccountFile = 4 << 20

// AllCapabilities are every capability that this kernel knows and this process may pass on.
func AllCapabilities() (*specs.LinuxCapabilities, error) {
	return capabilities(Options{Privileged: true})
}

// LookupUser finds USER[:GROUP], by name or number, in the passwd and group files below root, which
// may be the container's (/proc/PID/root): no link in them leads out of it. A number needs no
// entry. Without GROUP the user's own group and the others it is listed in are taken. The group is among
// the additional ones as well, lest a program that sets its group id loses it. A name that
// is not there is errdefs.ErrNotFound; a number over 2^31-1 errdefs.ErrInvalidArgument.
func LookupUser(root, user string) (specs.User, error) {
	u, err := lookupUser(root, user)
	if err != nil {
		return specs.User{}, fmt.Errorf("look up user %q: %w", user, err)
	}
	return u, nil
}

func lookupUser(root, user string) (specs.User, error) {
	name, group, hasGroup := strings.Cut(user, ":")
	var out specs.User
	known := false
	number, isNumber, err := id(name)
	if err != nil {
		return out, err
	}
	err = eachEntry(root, "etc/passwd", 4, func(f []string) error {
		uid, uok, _ := id(f[2])
		gid, gok, _ := id(f[3])
		if known || !uok || !gok || isNumber && uid != number || !isNumber && f[0] != name {
			return nil
		}
		known, out.UID, out.GID, name = true, uid, gid, f[0]
		return nil
	})
	switch {
	case err != nil:
		return out, err
	case !known && !isNumber:
		return out, fmt.Errorf("no such user in the container: %w", reason.UserNotFound)
	case !known:
		out.UID = number
	}
	var others []uint32
	switch {
	case hasGroup:
		out.GID, err = lookupGroup(root, group)
	case known:
		others, err = groupsOf(root, name, out.GID)
	}
	out.AdditionalGids = append([]uint32{out.GID}, others...)
	return out, err
}

func lookupGroup(root, group string) (uint32, error) {
	number, isNumber, err := id(group)
	if err != nil || isNumber {
		return number, err
	}
	found := false
	err = eachEntry(root, "etc/group", 3, func(f []string) error {
		gid, ok, _ := id(f[2])
		if ok && !found && f[0] == group {
			found, number = true, gid
		}
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("no such group in the container: %w", reason.UserNotFound)
	}
	return number, err
}

// groupsOf returns the groups besides its own that list a user.
func groupsOf(root, name string, own uint32) ([]uint32, error) {
	var out []uint32
	err := eachEntry(root, "etc/group", 4, func(f []string) error {
		gid, ok, _ := id(f[2])
		if ok && gid != own && !slices.Contains(out, gid) && slices.Contains(strings.Split(f[3], ","), name) {
			out = append(out, gid)
		}
		return nil
	})
	return out, err
}

// id reads a number; what begins like one must be one that an id can be.
func id(text string) (n uint32, ok bool, err error) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, false, nil
	}
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil || v > math.MaxInt32 {
		return 0, false, fmt.Errorf("id %s is over 2147483647: %w", text, errdefs.ErrInvalidArgument)
	}
	return uint32(v), true, nil
}

// eachEntry calls f with the fields of each line that has enough; a file that is not there has none.
func eachEntry(root, name string, fields int, f func([]string) error) error {
	file, err := openIn(root, name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // it was only read
	lines := bufio.NewScanner(io.LimitReader(file, maxAccountFile))
	for lines.Scan() {
		parts := strings.Split(lines.Text(), ":")
		if len(parts) < fields {
			continue
		}
		if err := f(parts); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read /%s of the container: %w", name, err)
	}
	return nil
}

// openIn opens a regular file below root as a process with that root would see it.
func openIn(root, name string) (*os.File, error) {
	dir, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open root of the container: %w", err)
	}
	defer func() { _ = dir.Close() }() // it was only looked through
	fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, fmt.Errorf("open /%s of the container: %w", name, err)
	}
	file := os.NewFile(uintptr(fd), name)
	if st, err := file.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("open /%s of the container: not a regular file: %w", name, errdefs.ErrInvalidArgument),
			err, file.Close())
	}
	return file, nil
}
