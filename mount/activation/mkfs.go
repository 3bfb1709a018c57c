package activation

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/bytesize"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/proto/reason"
)

// mkfsPrefix starts the options of the transform mkfs, which creates a file system in the file that is
// the mount's source. An existing file is used as it is.
//
//	X-containerd.mkfs.size=BYTES     with an optional unit: KiB, MiB, GiB, TiB
//	X-containerd.mkfs.fs=TYPE        ext2, ext3, ext4 (the default) or xfs
//	X-containerd.mkfs.uuid=UUID      of the file system; random by default
const mkfsPrefix = "X-containerd.mkfs."

// programDirs are the directories of the mkfs programs; never the daemon's PATH.
const programDirs = "/usr/sbin:/sbin:/usr/bin:/bin"

func makeFileSystem(ctx context.Context, m *mount.Mount) (err error) {
	var size int64
	fsType, uuid := "ext4", ""
	for _, o := range takeOptions(m, mkfsPrefix) {
		switch o[0] {
		case "size":
			size, err = parseSize(o[1])
		case "fs":
			fsType = o[1]
		case "uuid":
			uuid, err = o[1], checkUUID(o[1])
		default:
			err = fmt.Errorf("option %s%s: want size, fs or uuid: %w", mkfsPrefix, o[0], errdefs.ErrInvalidArgument)
		}
		if err != nil {
			return err
		}
	}
	args, err := mkfsArgs(fsType, uuid)
	if err != nil {
		return err
	}
	if !filepath.IsAbs(m.Source) {
		return fmt.Errorf("source %q: want the absolute path of a file: %w", m.Source, errdefs.ErrInvalidArgument)
	}
	switch _, err := os.Lstat(m.Source); {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if size == 0 {
		return fmt.Errorf("%s does not exist, and no size is given: %w", m.Source, errdefs.ErrInvalidArgument)
	}
	return makeImage(ctx, m.Source, size, args)
}

// makeImage creates the file under another name, so that it appears complete or not at all.
func makeImage(ctx context.Context, path string, size int64, args []string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".mkfs-")
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
	}
	defer func() { err = errors.Join(err, removed(f.Name())) }()
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, args[0], append(args[1:], f.Name())...)
	cmd.Env = []string{"PATH=" + programDirs}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", args[0], err, strings.TrimSpace(said.String()))
	}
	return os.Link(f.Name(), path)
}

func removed(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// mkfsArgs returns the command that creates a file system, without the file.
func mkfsArgs(fsType, uuid string) ([]string, error) {
	var args []string
	switch fsType {
	case "ext2", "ext3", "ext4":
		if args = []string{"-q", "-F"}; uuid != "" {
			args = append(args, "-U", uuid)
		}
	case "xfs":
		if args = []string{"-q", "-f"}; uuid != "" {
			args = append(args, "-m", "uuid="+uuid)
		}
	default:
		return nil, fmt.Errorf("file system %q: want ext2, ext3, ext4 or xfs: %w", fsType, errdefs.ErrInvalidArgument)
	}
	for _, dir := range filepath.SplitList(programDirs) {
		path := filepath.Join(dir, "mkfs."+fsType)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return append([]string{path}, args...), nil
		}
	}
	return nil, fmt.Errorf("mkfs.%s not found in %s: %w", fsType, programDirs, reason.ProgramMissing)
}

// checkUUID refuses a text that is not 32 hexadecimal digits in groups of 8, 4, 4, 4 and 12.
func checkUUID(text string) error {
	groups := strings.Split(text, "-")
	digits, err := hex.DecodeString(strings.Join(groups, ""))
	if err != nil || len(digits) != 16 || len(text) != 36 || len(groups) != 5 || len(groups[0]) != 8 || len(groups[4]) != 12 || len(groups[1]) != 4 || len(groups[2]) != 4 {
		return fmt.Errorf("%q is not a UUID: %w", text, errdefs.ErrInvalidArgument)
	}
	return nil
}

// parseSize parses the size of a file system, which may have a space before its unit.
func parseSize(text string) (int64, error) {
	n, err := bytesize.ParseWhole(strings.Replace(text, " ", "", 1))
	if err == nil && n == 0 {
		err = fmt.Errorf("size %q: want more than 0: %w", text, errdefs.ErrInvalidArgument)
	}
	return n, err
}
