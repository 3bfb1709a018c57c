package mount

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// shorten makes the paths of an overlay's options relative to their common directory.
// It returns false if there is nothing to gain.
func shorten(fsType string, data []string) (dir string, short []string, ok bool) {
	if fsType != "overlay" {
		return "", nil, false
	}
	var paths []string
	for _, opt := range data {
		key, value, _ := strings.Cut(opt, "=")
		switch key {
		case "lowerdir":
			paths = append(paths, splitLower(value)...)
		case "upperdir", "workdir":
			paths = append(paths, value)
		}
	}
	dir = commonDir(paths)
	if dir == "" || dir == "/" {
		return "", nil, false
	}
	for _, opt := range data {
		key, value, _ := strings.Cut(opt, "=")
		switch key {
		case "lowerdir":
			lower := splitLower(value)
			for i := range lower {
				lower[i] = strings.TrimPrefix(lower[i], dir+"/")
			}
			opt = key + "=" + strings.Join(lower, ":")
		case "upperdir", "workdir":
			opt = key + "=" + strings.TrimPrefix(value, dir+"/")
		}
		short = append(short, opt)
	}
	return unescape(dir), short, true
}

// commonDir returns the deepest directory above all paths, still escaped, or ""
// if one of them is not absolute or is that directory itself.
func commonDir(paths []string) string {
	if len(paths) == 0 {
		return ""
	}
	dir := filepath.Dir(paths[0])
	for _, p := range paths {
		if !strings.HasPrefix(p, "/") {
			return ""
		}
		for dir != "/" && !strings.HasPrefix(p, dir+"/") {
			dir = filepath.Dir(dir)
		}
	}
	return dir
}

// splitLower splits at colons that are not escaped, and keeps the backslashes.
func splitLower(s string) []string {
	var parts []string
	start := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case ':':
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// EscapeOverlayPath escapes a path for overlay's options: characters that
// separate layers and options are escaped by backslashes.
func EscapeOverlayPath(path string) string {
	if !strings.ContainsAny(path, `\:,`) {
		return path
	}
	return strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`).Replace(path)
}

// inDir calls f on a thread of its own whose working directory is dir. The working
// directory of the rest of the process does not change.
func inDir(dir string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread, which no longer shares its working directory with
		// the others, ends with this goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- fmt.Errorf("unshare working directory: %w", err)
			return
		}
		if err := unix.Chdir(dir); err != nil {
			done <- fmt.Errorf("change to directory %s: %w", dir, err)
			return
		}
		err := f()
		// The main thread outlives its goroutine: it must not pin dir.
		_ = unix.Chdir("/")
		done <- err
	}()
	return <-done
}
