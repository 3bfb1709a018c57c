package mount

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// Under returns the mount points at path and below it in this thread's mount namespace,
// each once, the deepest first: the order in which they can be unmounted. Links in path
// are followed. A path that does not exist is not an error.
func Under(path string) ([]string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("list mounts below %s: %w", path, err)
	}
	if resolved, err := filepath.EvalSymlinks(abs); err == nil {
		abs = resolved
	}
	prefix := strings.TrimSuffix(abs, "/") + "/"
	mounts, err := list(func(m *mountinfo.Info) bool {
		return m.Mountpoint == abs || strings.HasPrefix(m.Mountpoint, prefix)
	})
	if err != nil {
		return nil, fmt.Errorf("list mounts below %s: %w", path, err)
	}
	var points []string
	for _, m := range mounts {
		points = append(points, m.Mountpoint)
	}
	slices.SortFunc(points, func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.Count(b, "/"), strings.Count(a, "/")), strings.Compare(a, b))
	})
	return slices.Compact(points), nil
}

// list returns the mounts of this thread's namespace that wanted accepts, in the kernel's order: a mount comes
// after those that it hides.
func list(wanted func(*mountinfo.Info) bool) (_ []*mountinfo.Info, err error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return mountinfo.GetMountsFromReader(&shortLines{r: f}, func(m *mountinfo.Info) (skip, stop bool) {
		return !wanted(m), false
	})
}

// maxLine is the number of bytes of a line of mountinfo that are read. The library fails for the whole table if one line
// exceeds 64 KiB, and the options at its end may: those of an overlay name all its layers. What precedes them cannot,
// because paths end at 4 KiB.
const maxLine = 60 << 10

// shortLines cuts each line off after maxLine bytes.
type shortLines struct {
	r    io.Reader
	line int // bytes of the current line so far
}

func (s *shortLines) Read(p []byte) (int, error) {
	for {
		n, err := s.r.Read(p)
		kept := p[:0]
		for _, b := range p[:n] {
			if b == '\n' {
				s.line = 0
			} else if s.line++; s.line > maxLine {
				continue
			}
			kept = append(kept, b)
		}
		if len(kept) > 0 || err != nil || n == 0 {
			return len(kept), err
		}
	}
}
