package shim

import (
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"
)

// logger writes lines in the format that daemons expect from a shim: time="..." level=...
// msg="...". It does not block: its writer is opened without blocking, and a line that does not fit
// is lost.
type logger struct {
	mu    sync.Mutex
	out   io.Writer
	debug bool
}

func (l *logger) Warnf(format string, args ...any) { l.write("warning", format, args...) }

func (l *logger) Infof(format string, args ...any) { l.write("info", format, args...) }

func (l *logger) Debugf(format string, args ...any) {
	if l.debug {
		l.write("debug", format, args...)
	}
}

func (l *logger) write(level, format string, args ...any) {
	line := "time=" + strconv.Quote(time.Now().UTC().Format(time.RFC3339Nano)) +
		" level=" + level + " msg=" + strconv.Quote(fmt.Sprintf(format, args...)) + "\n"
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = io.WriteString(l.out, line) // no place is left to report it
}
