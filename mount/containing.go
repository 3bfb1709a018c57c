package mount

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Point is a mount as the kernel lists it.
type Point struct {
	// Point is where it is, Type the file system's, Source what it is made of.
	Point, Type, Source string
}

// Containing returns the mount that a path is on: of those above it, the nearest, and of several at one
// place the one that shows.
func Containing(path string) (Point, error) {
	abs, err := filepath.Abs(path)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return Point{}, fmt.Errorf("find the mount of %s: %w", path, err)
	}
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return Point{}, fmt.Errorf("find the mount of %s: %w", path, err)
	}
	defer func() { _ = f.Close() }()
	var best Point
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20) // an overlay's options may be long
	for lines.Scan() {
		p, ok := parsePoint(lines.Text())
		prefix := strings.TrimSuffix(p.Point, "/") + "/"
		if ok && len(p.Point) >= len(best.Point) && (abs == p.Point || strings.HasPrefix(abs, prefix)) {
			best = p
		}
	}
	if err := lines.Err(); err != nil {
		return Point{}, fmt.Errorf("find the mount of %s: %w", path, err)
	}
	if best.Point == "" {
		return Point{}, fmt.Errorf("find the mount of %s: %w", path, fs.ErrNotExist)
	}
	return best, nil
}

// parsePoint reads a line of mountinfo.
func parsePoint(line string) (p Point, ok bool) {
	if p.Point, ok = mountPoint(line); !ok {
		return p, false
	}
	_, rest, ok := strings.Cut(line, " - ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 2 {
		return p, false
	}
	p.Type, p.Source = fields[0], unescapeOctal(fields[1])
	return p, true
}
