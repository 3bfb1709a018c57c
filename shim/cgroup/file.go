package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// files reads the small files of one cgroup. What is missing reads as empty: which files there
// are depends on the kernel and its configuration.
type files string

func (d files) text(name string) string {
	if d == "" {
		return ""
	}
	data, err := os.ReadFile(filepath.Join(string(d), name))
	if err != nil {
		return ""
	}
	return string(data)
}

// number reads a file of one number; "max", the absence of a limit, is 0 as is a missing file.
func (d files) number(name string) uint64 { return number(d.text(name)) }

// limit is number, with "max" as the largest number.
func (d files) limit(name string) uint64 {
	text := strings.TrimSpace(d.text(name))
	if text == "max" {
		return ^uint64(0)
	}
	return number(text)
}

func number(text string) uint64 {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// keyed reads a file of lines "key value".
func (d files) keyed(name string) map[string]uint64 {
	out := make(map[string]uint64)
	for line := range strings.Lines(d.text(name)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			out[key] = number(value)
		}
	}
	return out
}

// device splits "MAJOR:MINOR".
func device(s string) (major, minor uint64, ok bool) {
	a, b, ok := strings.Cut(s, ":")
	return number(a), number(b), ok
}
