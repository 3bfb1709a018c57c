// Package userdb looks up USER[:GROUP] in the passwd and group files of a root file system. It is the only reader of
// these files: the init of a container and processes that are added to it get the same ids.
//
// The files belong to the author of an image. They are opened below the root file system whatever links in it
// say, must be regular, at most 4 MiB long and of at most 65,536 entries, and only their well-formed lines count: a line
// without numeric ids is ignored, as libc does, and never read as the ids of root.
package userdb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/inroot"
	"github.com/cleatproject/cleat/proto/reason"
)

// MaxID is the highest user or group id. Higher ones are negative to interfaces that use 32-bit signed numbers.
const MaxID = 1<<31 - 1

// maxFile is the highest number of bytes in a passwd or group file, maxEntries that of entries: as many as a process can
// have groups. The memory of a lookup grows with the entries that match.
const (
	maxFile    = 4 << 20
	maxEntries = 1 << 16
)

// Identity is the ids that a process runs with.
type Identity struct {
	UID, GID uint32
	// Groups are the supplementary groups. The first is GID: a program that changes its group id would otherwise lose
	// it, and with it what a file denies that group.
	Groups []uint32
}

// Lookup returns the ids of USER[:GROUP], each a name or a number.
//
//   - A number is never looked up as a name, and needs no entry. An empty USER is user 0.
//   - Without GROUP, the user's own group and those that list it apply; with GROUP, that group alone.
//   - Of several matching lines, the first counts. A missing file has no lines.
//
// It returns errdefs.ErrNotFound with reason.UserNotFound for an unknown name, and errdefs.ErrInvalidArgument for an id
// outside 0 to MaxID, an empty GROUP, and a file that is not regular or exceeds a limit.
func Lookup(root *os.File, spec string) (Identity, error) {
	who, err := lookup(root, spec)
	if err != nil {
		return Identity{}, fmt.Errorf("user %q: %w", spec, err)
	}
	return who, nil
}

func lookup(root *os.File, spec string) (Identity, error) {
	if strings.HasSuffix(spec, ":") && strings.Count(spec, ":") == 1 {
		return Identity{}, fmt.Errorf("empty group: %w", errdefs.ErrInvalidArgument)
	}
	passwd := &file{root: root, path: "etc/passwd", numbers: []int{2, 3}}
	group := &file{root: root, path: "etc/group", numbers: []int{2}}
	found, err := user.GetExecUser(spec, nil, passwd, group)
	switch {
	case passwd.err != nil:
		return Identity{}, passwd.err
	case group.err != nil:
		return Identity{}, group.err
	case errors.Is(err, user.ErrNoPasswdEntries):
		return Identity{}, fmt.Errorf("no such user in /etc/passwd: %w", reason.UserNotFound)
	case errors.Is(err, user.ErrNoGroupEntries):
		return Identity{}, fmt.Errorf("no such group in /etc/group: %w", reason.UserNotFound)
	case errors.Is(err, user.ErrRange), err == nil && !(inRange(found.Uid) && inRange(found.Gid)):
		return Identity{}, fmt.Errorf("id outside 0 to %d: %w", MaxID, errdefs.ErrInvalidArgument)
	case err != nil:
		return Identity{}, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return identity(found), nil
}

// identity converts ids that are in range.
func identity(u *user.ExecUser) Identity {
	who := Identity{UID: uint32(u.Uid), GID: uint32(u.Gid), Groups: []uint32{uint32(u.Gid)}}
	seen := map[int]bool{u.Gid: true}
	for _, g := range u.Sgids {
		if inRange(g) && !seen[g] {
			seen[g] = true
			who.Groups = append(who.Groups, uint32(g))
		}
	}
	return who
}

func inRange(id int) bool { return 0 <= id && id <= MaxID }

// file reads the well-formed lines of a passwd or group file. It is opened by the first Read: a lookup that does not
// need it does not fail because of it.
type file struct {
	root    *os.File
	path    string
	numbers []int // the fields that have to be numbers
	lines   io.Reader
	err     error
}

var _ io.Reader = (*file)(nil)

func (f *file) Read(p []byte) (int, error) {
	if f.lines == nil {
		lines, err := f.load()
		if err != nil {
			f.err = fmt.Errorf("read /%s: %w", f.path, err)
			return 0, f.err
		}
		f.lines = bytes.NewReader(lines)
	}
	return f.lines.Read(p)
}

// load returns the lines that are entries.
func (f *file) load() ([]byte, error) {
	data, err := readBelow(f.root, f.path)
	if err != nil {
		return nil, err
	}
	entries := 0
	out := make([]byte, 0, len(data))
	for line := range bytes.Lines(data) {
		if !isEntry(bytes.TrimSpace(line), f.numbers) {
			continue
		}
		if entries++; entries > maxEntries {
			return nil, fmt.Errorf("over %d entries: %w", maxEntries, errdefs.ErrInvalidArgument)
		}
		out = append(out, line...)
	}
	return out, nil
}

// isEntry reports whether a line is neither blank nor a comment and has all its numbers.
func isEntry(line []byte, numbers []int) bool {
	if len(line) == 0 || line[0] == '#' {
		return false
	}
	fields := bytes.Split(line, []byte(":"))
	return !slices.ContainsFunc(numbers, func(i int) bool { return i >= len(fields) || !isNumber(string(fields[i])) })
}

// isNumber reports whether text is a whole number, be it out of range.
func isNumber(text string) bool {
	_, err := strconv.Atoi(text)
	return err == nil || errors.Is(err, strconv.ErrRange)
}

// readBelow returns the content of a regular file of at most maxFile bytes; a missing one is empty. Links are
// followed inside root only.
func readBelow(root *os.File, path string) (_ []byte, err error) {
	fd, err := new(inroot.Opener).Open(int(root.Fd()), path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("not a regular file: %w", errdefs.ErrInvalidArgument)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("over %d bytes: %w", maxFile, errdefs.ErrInvalidArgument)
	}
	return data, nil
}
