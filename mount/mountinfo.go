package mount

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Under returns the mount points at path and below it in this thread's mount namespace,
// each once, the deepest first: the order in which they can be unmounted. Links in path
// are followed. A path that does not exist may still be asked for.
func Under(path string) ([]string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("list mounts below %s: %w", path, err)
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts below %s: %w", path, err)
	}
	defer func() { _ = f.Close() }()
	points, err := pointsUnder(f, abs)
	if err != nil {
		return nil, fmt.Errorf("list mounts below %s: %w", path, err)
	}
	return points, nil
}

func pointsUnder(r io.Reader, dir string) ([]string, error) {
	prefix := strings.TrimSuffix(dir, "/") + "/"
	var points []string
	br := bufio.NewReader(r)
	for {
		line, err := br.ReadString('\n')
		if point, ok := mountPoint(line); ok && (point == dir || strings.HasPrefix(point, prefix)) {
			points = append(points, point)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(points, func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.Count(b, "/"), strings.Count(a, "/")), strings.Compare(a, b))
	})
	return slices.Compact(points), nil
}

// mountPoint returns the fifth field of a line of mountinfo, unescaped.
func mountPoint(line string) (string, bool) {
	for range 4 {
		_, rest, ok := strings.Cut(line, " ")
		if !ok {
			return "", false
		}
		line = rest
	}
	field, _, ok := strings.Cut(line, " ")
	if !ok || !strings.HasPrefix(field, "/") {
		return "", false
	}
	return unescapeOctal(field), true
}

// unescapeOctal replaces \040 and the like, the way the kernel writes blanks.
func unescapeOctal(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && isOctal(s[i+1:i+4]) {
			b = append(b, (s[i+1]-'0')<<6|(s[i+2]-'0')<<3|(s[i+3]-'0'))
			i += 3
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

func isOctal(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '7' {
			return false
		}
	}
	return s[0] <= '3'
}
