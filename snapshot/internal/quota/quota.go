// Package quota limits what directories hold on disk, by the project quotas of XFS and ext4.
//
// A limited directory belongs to a project of its own, and hands it down to whatever is made in it; the
// file system counts what a project's files take, and refuses more than its limit. All there is to know
// is in the file system: the number of a project on its files, the limit in its quotas. Nothing can
// disagree with it after a crash.
//
// Numbers are drawn at random, and one is taken only if the file system knows of no file and no limit of
// it, and if the first file that gets it stays the only one. Others who draw numbers on the same file
// system are noticed by that, without a lock; so is a deleted file that a process still has open.
//
// Caveats: needs quotactl_fd (Linux 5.14) and the capability to administer the host. Files can be made
// without end, only their bytes are limited. On ext4 a process with CAP_SYS_RESOURCE that writes to the
// directory itself is not held back; through an overlay it is.
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

// Projects are numbered from lowest on: above what people and other programs use, by custom.
const (
	lowest  = 1 << 30
	numbers = 1 << 30
	// tries bounds the search for a free number.
	tries = 64
)

// Check answers nil if the file system of a directory keeps limits. Failed precondition otherwise, with
// what to do.
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
		return fmt.Errorf("limit storage: this takes the capability to administer the host: %w: %w", cause, errdefs.ErrFailedPrecondition)
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

// Within calls fill and limits what that makes in dir, an empty directory, to a number of bytes. dir
// itself is afterwards in the project that it was in. After an error no limit is left. Resource exhausted if
// fill makes more than that.
func Within(dir string, bytes int64, fill func() error) error {
	return within(dir, bytes, func() uint32 { return lowest + rand.Uint32N(numbers) }, fill)
}

// within is Within with draw to say which number is tried next.
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

// filled is the error of a fill, or that it made more than the limit: this process may be one that limits do
// not hold back.
func filled(f *os.File, id uint32, bytes int64, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("the limit of %d bytes, or the disk, is too small for what is there from the start: %w: %w", bytes, err, errdefs.ErrResourceExhausted)
	}
	if err != nil {
		return err
	}
	q, err := quotasOf(f, id)
	if err == nil && q.bytes > uint64(bytes) {
		err = fmt.Errorf("the limit of %d bytes is too small for the %d that are there from the start: %w", bytes, q.bytes, errdefs.ErrResourceExhausted)
	}
	return err
}

// claim puts an empty directory in a project that nobody else uses.
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
		// Somebody has drawn the same number at the same time: neither keeps it.
		if err := errors.Join(err, ioctl(f, setAttributes, &before)); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("find a free project in %s: %d numbers are all taken: %w", f.Name(), tries, errdefs.ErrUnavailable)
}

// Change sets another limit for a directory that Within has limited; 0 takes the limit away and keeps the
// project. Failed precondition for one that is in no project of its own.
func Change(dir string, bytes int64) error {
	return opened(dir, func(f *os.File) error {
		id, err := own(f)
		if err != nil {
			return err
		}
		if id == 0 {
			return fmt.Errorf("limit storage: %s was made without a limit, and gets none later: %w", dir, errdefs.ErrFailedPrecondition)
		}
		if err := Check(dir); err != nil {
			return err
		}
		return limit(f, id, bytes)
	})
}

// Release takes the limit of a directory away before the directory goes. It is no error if there is
// none, nor if the directory is not there. Its project is free again once its last file is gone.
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
// may be in one that an administrator has put everything in.
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
		return fmt.Errorf("limit storage: %d bytes are more than this file system can count: %w", bytes, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return fmt.Errorf("limit storage: %w", err)
	}
	return nil
}

// quotasOf returns what a file system knows of a project, which may be nothing.
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

// absent tells the errors of file systems and kernels that have no project quotas, or not switched on.
func absent(err error) bool {
	for _, errno := range []error{unix.ENOTTY, unix.EOPNOTSUPP, unix.ENOSYS, unix.ESRCH} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// opened calls f with a directory, open.
func opened(dir string, f func(*os.File) error) error {
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("limit storage: %w", err)
	}
	return errors.Join(f(d), d.Close())
}
