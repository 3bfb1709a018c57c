// Package quota limits the storage of directories, by the project quotas of XFS and ext4.
//
// A limited directory belongs to a project of its own, which files created in it inherit; the
// file system counts the storage of a project's files, and refuses more than its limit. The file system
// has all the state: the number of a project on its files, the limit in its quotas. Nothing can
// disagree with it after a crash.
//
// Numbers are drawn at random, and one is used only if the file system has no file and no limit of
// it, and if the first file that gets it remains the only one. Other programs that draw numbers on the same file
// system are noticed by that, without a lock; so is a deleted file that a process still has open.
//
// Caveats: needs quotactl_fd (Linux 5.14) and the capability to administer the host. The number of
// files is not limited, only their bytes. On ext4 a process with CAP_SYS_RESOURCE that writes to the
// directory itself is not limited; through an overlay it is.
package quota

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/proto/reason"
)

// Projects are numbered from lowest on: above the numbers that people and other programs customarily use.
const (
	lowest  = 1 << 30
	numbers = 1 << 30
	// tries bounds the search for a free number.
	tries = 64
)

// Check returns nil if the file system of a directory supports limits. Failed precondition otherwise, with
// the reason.
func Check(dir string) error {
	return opened(dir, func(f *os.File) error {
		s := state{version: stateVersion}
		if err := control(f, getState, 0, unsafe.Pointer(&s)); err != nil {
			return unsupported(dir, err)
		}
		if s.flags&enforced == 0 {
			return unsupported(dir, nil)
		}
		return nil
	})
}

// unsupported returns the error of a directory without limits.
func unsupported(dir string, cause error) error {
	if errors.Is(cause, unix.EPERM) {
		return fmt.Errorf("limit storage: capability to administer the host is missing: %w: %w", cause, errdefs.ErrFailedPrecondition)
	}
	m, err := mount.Containing(dir)
	if err != nil {
		return errors.Join(fmt.Errorf("limit storage: %w", errdefs.ErrFailedPrecondition), cause, err)
	}
	why := ""
	if cause != nil {
		why = fmt.Sprintf(" (%v)", cause)
	}
	return fmt.Errorf("limit storage: the file system %s at %s does not keep project quotas%s: %w",
		m.Type, m.Point, why, reason.QuotaUnavailable)
}

// Within calls fill and limits the files that it creates in dir, an empty directory, to a number of bytes. dir
// itself is afterwards in its former project. After an error no limit is left. Resource exhausted if
// fill writes more than that.
func Within(dir string, bytes int64, fill func() error) error {
	return within(dir, bytes, func() uint32 { return lowest + rand.Uint32N(numbers) }, fill)
}

// within is Within with draw, which returns the next number to try.
func within(dir string, bytes int64, draw func() uint32, fill func() error) error {
	if err := Check(dir); err != nil {
		return err
	}
	return opened(dir, func(f *os.File) error {
		before, err := attributesOf(f)
		if err != nil {
			return unsupported(dir, err)
		}
		id, err := claim(f, before, draw)
		if err != nil {
			return fmt.Errorf("limit storage: %w", err)
		}
		err = limit(f, id, bytes)
		if err == nil {
			err = filled(f, id, bytes, fill())
		}
		if err == nil {
			err = ioctl(f, setAttributes, &before)
		}
		if err != nil {
			return errors.Join(err, limit(f, id, 0), ioctl(f, setAttributes, &before))
		}
		return nil
	})
}

// filled returns the error of a fill, or one if it wrote more than the limit: this process may be one that
// limits do not apply to.
func filled(f *os.File, id uint32, bytes int64, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("limit of %d bytes, or the disk, is too small for the initial content: %w: %w", bytes, err, errdefs.ErrResourceExhausted)
	}
	if err != nil {
		return err
	}
	q, err := quotasOf(f, id)
	if err == nil && q.bytes > uint64(bytes) {
		err = fmt.Errorf("limit of %d bytes is too small for the initial content of %d: %w", bytes, q.bytes, errdefs.ErrResourceExhausted)
	}
	return err
}

// claim puts an empty directory in a project that is not in use.
func claim(f *os.File, before attributes, draw func() uint32) (uint32, error) {
	after := before
	after.flags |= inheritFlag
	for range tries {
		after.project = draw()
		q, err := quotasOf(f, after.project)
		if err != nil {
			return 0, err
		}
		if q.files != 0 || q.bytes != 0 || q.hardBlocks != 0 || q.softBlocks != 0 || q.hardFiles != 0 || q.softFiles != 0 {
			continue
		}
		if err := ioctl(f, setAttributes, &after); err != nil {
			return 0, err
		}
		if q, err = quotasOf(f, after.project); err == nil && q.files == 1 {
			return after.project, nil
		}
		// Another program has drawn the same number concurrently: neither keeps it.
		if err := errors.Join(err, ioctl(f, setAttributes, &before)); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("find a free project in %s: %d numbers are all in use: %w", f.Name(), tries, errdefs.ErrUnavailable)
}

// Change sets another limit for a directory limited by Within; 0 removes the limit and keeps the
// project. Failed precondition for one that is in no project of its own.
func Change(dir string, bytes int64) error {
	return opened(dir, func(f *os.File) error {
		id, err := own(f)
		if err != nil {
			return err
		}
		if id == 0 {
			return fmt.Errorf("limit storage: %s was created without a limit: %w", dir, errdefs.ErrFailedPrecondition)
		}
		if err := Check(dir); err != nil {
			return err
		}
		return limit(f, id, bytes)
	})
}

// Release removes the limit of a directory before the directory is deleted. A missing limit or
// directory is not an error. Its project is free again once its last file is deleted.
func Release(dir string) error {
	err := opened(dir, func(f *os.File) error {
		id, err := own(f)
		if id == 0 || err != nil {
			return err
		}
		return limit(f, id, 0)
	})
	if errors.Is(err, fs.ErrNotExist) || absent(err) {
		return nil
	}
	return err
}

// own returns the number of a directory's project, 0 if it is in none that claim has drawn for it: it
// may be in one to which an administrator has assigned everything.
func own(f *os.File) (uint32, error) {
	a, err := attributesOf(f)
	if absent(err) || err == nil && (a.project < lowest || a.project >= lowest+numbers) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	above, err := os.Open(filepath.Dir(f.Name()))
	if err != nil {
		return 0, err
	}
	defer func() { _ = above.Close() }()
	b, err := attributesOf(above)
	if err != nil || a.project == b.project {
		return 0, err
	}
	return a.project, nil
}

// limit sets the limit of a project.
func limit(f *os.File, id uint32, bytes int64) error {
	blocks := (uint64(bytes) + blockSize - 1) / blockSize
	q := quotas{hardBlocks: blocks, valid: validBlocks}
	err := control(f, setQuota, id, unsafe.Pointer(&q))
	if errors.Is(err, unix.ERANGE) {
		return fmt.Errorf("limit storage: %d bytes exceed the maximum of this file system: %w", bytes, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return fmt.Errorf("limit storage: %w", err)
	}
	return nil
}

// quotasOf returns the quotas of a project, which may be empty.
func quotasOf(f *os.File, id uint32) (q quotas, err error) {
	err = control(f, getQuota, id, unsafe.Pointer(&q))
	if errors.Is(err, unix.ENOENT) {
		return quotas{}, nil
	}
	return q, err
}

func attributesOf(f *os.File) (a attributes, err error) {
	err = ioctl(f, getAttributes, &a)
	return a, err
}

// absent reports whether err is of a file system or kernel without project quotas, or with quotas switched off.
func absent(err error) bool {
	for _, errno := range []error{unix.ENOTTY, unix.EOPNOTSUPP, unix.ENOSYS, unix.ESRCH} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// opened calls f with an open directory.
func opened(dir string, f func(*os.File) error) error {
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("limit storage: %w", err)
	}
	return errors.Join(f(d), d.Close())
}
