package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/cleatproject/cleat/client"
)

// bars show the progress of the parts of an image on stderr: one line for each part, redrawn on a terminal; without a
// terminal, one line for each completed part.
type bars struct {
	out    *os.File
	live   bool // out is a terminal
	screen terminal
	quiet  bool
	now    func() time.Time

	order []string
	parts map[string]*bar
	drawn int // number of lines on the screen
}

type bar struct {
	client.Part
	began, last time.Time
	from        int64 // bytes that were complete when the transfer began
}

const (
	barWidth = 24
	// longestTail is the maximum width of brackets, bytes and rate, next to a bar.
	longestTail = len("[] 1023.9MiB / 1023.9MiB  1023.9MiB/s")
)

func (a *app) newBars(quiet bool) *bars {
	b := &bars{out: a.stderr, quiet: quiet, now: time.Now, parts: make(map[string]*bar)}
	if c, err := openConsole(a.stderr); err == nil {
		b.live, b.screen.output = true, c
	}
	return b
}

// update shows the parts that changed.
func (b *bars) update(changed []client.Part) {
	if b.quiet {
		return
	}
	var lines []string
	for _, p := range changed {
		old := b.parts[p.Digest]
		if old == nil {
			old = &bar{}
			b.parts[p.Digest] = old
			b.order = append(b.order, p.Digest)
		}
		if isMoving(p.State) && !isMoving(old.State) {
			old.began, old.from = b.now(), p.Done
		}
		if p.State != old.State && !b.live && isDone(p.State) {
			lines = append(lines, fmt.Sprintf("%s: %s %s", shortDigest(p.Digest), p.State, size(uint64(max(p.Total, 0)))))
		}
		old.Part, old.last = p, b.now()
	}
	if b.live {
		b.draw()
		return
	}
	_ = writeLines(b.out, lines) // progress is optional
}

func isMoving(state string) bool {
	return state == "downloading" || state == "uploading" || state == "converting"
}

func isDone(state string) bool { return state != "waiting" && state != "unpacking" && !isMoving(state) }

// finish ends the redrawing; the lines stay.
func (b *bars) finish() { b.drawn = 0 }

// draw replaces the lines on the screen, as many as fit.
func (b *bars) draw() {
	width, height := 80, 24
	if w, h, ok := b.screen.size(); ok && w > 20 && h > 2 {
		width, height = int(w), int(h)
	}
	var text strings.Builder
	if b.drawn > 0 {
		fmt.Fprintf(&text, "\x1b[%dA", b.drawn)
	}
	shown := b.order
	if len(shown) > height-1 {
		shown = b.unfinished(height - 1)
	}
	for _, d := range shown {
		line := b.parts[d].line(width - 1)
		if len(line) > width-1 {
			line = line[:width-1]
		}
		text.WriteString("\r" + line + "\x1b[K\n")
	}
	if len(shown) < b.drawn {
		text.WriteString("\x1b[J")
	}
	b.drawn = len(shown)
	_, _ = b.out.WriteString(text.String()) // progress is optional
}

// unfinished returns at most that many parts, incomplete ones first.
func (b *bars) unfinished(most int) []string {
	var out []string
	for _, done := range []bool{false, true} {
		for _, d := range b.order {
			if isDone(b.parts[d].State) == done && len(out) < most {
				out = append(out, d)
			}
		}
	}
	return out
}

// line formats a part: digest, state, bar, bytes, rate. On a narrow screen the bar is shorter.
func (b *bar) line(width int) string {
	head := fmt.Sprintf("%-19s %-11s ", shortDigest(b.Digest), b.State)
	tail := fmt.Sprintf(" %9s / %s", size(uint64(max(b.Done, 0))), size(uint64(max(b.Total, 0))))
	if took := b.last.Sub(b.began); isMoving(b.State) && took > 0 && b.Done > b.from {
		tail += fmt.Sprintf("  %s/s", size(uint64(float64(b.Done-b.from)/took.Seconds())))
	}
	most := max(0, min(barWidth, width-len(head)-longestTail))
	full := most
	if b.Total > 0 {
		full = int(min(b.Done, b.Total) * int64(most) / b.Total)
	}
	if b.State == "waiting" {
		full = 0
	}
	return head + "[" + strings.Repeat("=", full) + strings.Repeat(" ", most-full) + "]" + tail
}
