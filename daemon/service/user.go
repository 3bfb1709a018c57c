package service

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/inroot"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/proto/reason"
)

// identity is who a process runs as. Its own group is the first of groups: one that is not there would be
// lost by a program that sets its group id, and with it what a file denies that group.
type identity struct {
	uid, gid uint32
	groups   []uint32
}

// maxAccountFile bounds what is read of an image's passwd or group file. They are the image
// author's and may be anything.
const maxAccountFile = 4 << 20

// maxID is the highest user or group id that the kernel's interfaces take without doubt about the
// sign; an image that asks for more is refused.
const maxID = 1<<31 - 1

// resolveUser looks up USER[:GROUP] in the passwd and group files of a root file system, without
// mounting it anywhere. A name that is all digits is a number, never looked up as a name. An empty
// user is root.
func resolveUser(ctx context.Context, mounts []mount.Mount, rootfs, user string) (_ *identity, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	root, err := openRoot(mounts, rootfs)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	name, group, hasGroup := strings.Cut(user, ":")
	if hasGroup && group == "" {
		return nil, fmt.Errorf("user %q: empty group after the colon: %w", user, errdefs.ErrInvalidArgument)
	}
	who, login, err := lookupUser(root, first(name, "0"))
	if err != nil {
		return nil, err
	}
	var others []uint32
	switch {
	case hasGroup:
		who.gid, err = lookupGroup(root, group)
	case login != "":
		others, err = memberships(root, login, who.gid)
	}
	who.groups = append([]uint32{who.gid}, others...)
	return who, err
}

// openRoot returns the root directory as a descriptor.
func openRoot(mounts []mount.Mount, rootfs string) (*os.File, error) {
	if rootfs != "" {
		f, err := os.OpenFile(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open root file system: %w: %w", err, errdefs.ErrNotFound)
		}
		return f, nil
	}
	f, err := mount.Detached(mount.ToLook(mounts))
	if err != nil {
		return nil, fmt.Errorf("look into root file system: %w", err)
	}
	return f, nil
}

// lookupUser returns a user and, where the passwd file knows one, the login name.
func lookupUser(root *os.File, user string) (*identity, string, error) {
	number, isNumber := parseID(user)
	if isNumber && number > maxID {
		return nil, "", fmt.Errorf("user %s: ids go up to %d: %w", user, maxID, errdefs.ErrInvalidArgument)
	}
	var who *identity
	var login string
	err := eachLine(root, "etc/passwd", func(fields []string) (bool, error) {
		if len(fields) < 4 || isNumber && fields[2] != strconv.FormatUint(number, 10) || !isNumber && fields[0] != user {
			return false, nil
		}
		uid, ok1 := parseID(fields[2])
		gid, ok2 := parseID(fields[3])
		if !ok1 || !ok2 || uid > maxID || gid > maxID {
			return false, fmt.Errorf("user %s: the image's passwd file gives no usable ids for it: %w", user, errdefs.ErrInvalidArgument)
		}
		who, login = &identity{uid: uint32(uid), gid: uint32(gid)}, fields[0]
		return true, nil
	})
	if err != nil {
		return nil, "", err
	}
	if who != nil {
		return who, login, nil
	}
	if isNumber {
		return &identity{uid: uint32(number)}, "", nil
	}
	return nil, "", fmt.Errorf("user %s: not in the image's passwd file: %w", user, reason.UserNotFound)
}

func lookupGroup(root *os.File, group string) (uint32, error) {
	if gid, ok := parseID(group); ok {
		if gid > maxID {
			return 0, fmt.Errorf("group %s: ids go up to %d: %w", group, maxID, errdefs.ErrInvalidArgument)
		}
		return uint32(gid), nil
	}
	var found *uint32
	err := eachLine(root, "etc/group", func(fields []string) (bool, error) {
		if len(fields) < 3 || fields[0] != group {
			return false, nil
		}
		gid, ok := parseID(fields[2])
		if !ok || gid > maxID {
			return false, fmt.Errorf("group %s: the image's group file gives no usable id for it: %w", group, errdefs.ErrInvalidArgument)
		}
		id := uint32(gid)
		found = &id
		return true, nil
	})
	if err != nil {
		return 0, err
	}
	if found == nil {
		return 0, fmt.Errorf("group %s: not in the image's group file: %w", group, reason.UserNotFound)
	}
	return *found, nil
}

// memberships returns the groups besides its own that list a login.
func memberships(root *os.File, login string, own uint32) ([]uint32, error) {
	var groups []uint32
	err := eachLine(root, "etc/group", func(fields []string) (bool, error) {
		if len(fields) < 4 || !slices.Contains(strings.Split(fields[3], ","), login) {
			return false, nil
		}
		gid, ok := parseID(fields[2])
		if ok && gid <= maxID && uint32(gid) != own && !slices.Contains(groups, uint32(gid)) {
			groups = append(groups, uint32(gid))
		}
		return false, nil
	})
	return groups, err
}

// parseID reports whether a text is a number, and which.
func parseID(text string) (uint64, bool) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		// Digits that overflow are still a number, and too high a one.
		return n, errors.Is(err, strconv.ErrRange)
	}
	return n, true
}

// eachLine calls f with the colon-separated fields of each line until it returns true. A missing
// file has no lines. Links in the path are followed inside root only.
func eachLine(root *os.File, path string, f func(fields []string) (stop bool, err error)) error {
	fd, err := new(inroot.Opener).Open(int(root.Fd()), path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s of the image: %w", path, err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close() //nolint:errcheck // only read
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("open %s of the image: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s of the image is not a regular file: %w", path, errdefs.ErrInvalidArgument)
	}
	if info.Size() > maxAccountFile {
		return fmt.Errorf("%s of the image is over %d bytes: %w", path, maxAccountFile, errdefs.ErrInvalidArgument)
	}
	lines := bufio.NewScanner(io.LimitReader(file, maxAccountFile))
	lines.Buffer(nil, 64<<10)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if stop, err := f(strings.Split(line, ":")); stop || err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read %s of the image: %w: %w", path, err, errdefs.ErrInvalidArgument)
	}
	return nil
}
