package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"
)

// listFlags select the format of a list.
type listFlags struct {
	format string
	quiet  bool
}

func (l *listFlags) declare(fs *pflag.FlagSet) {
	fs.StringVar(&l.format, "format", "table", formatUsage)
	fs.BoolVarP(&l.quiet, "quiet", "q", false, "print names only")
	inGroup(fs, groupOutput, "format", "quiet")
}

const formatUsage = "output `FORMAT`: table or json"

// declareFormat declares --format for a command whose output is not a list.
func declareFormat(fs *pflag.FlagSet) *string {
	format := fs.String("format", "table", formatUsage)
	inGroup(fs, groupOutput, "format")
	return format
}

// show prints a list in the selected format: as JSON, names only, or as a table.
func (l *listFlags) show(w io.Writer, header []string, rows [][]string, names []string, asJSON any) error {
	if err := checkFormat(l.format); err != nil {
		return err
	}
	switch {
	case l.format == "json":
		return writeJSON(w, asJSON)
	case l.quiet:
		return writeLines(w, names)
	}
	return writeTable(w, header, rows)
}

// checkFormat returns ErrInvalidArgument if format is neither table nor json.
func checkFormat(format string) error {
	if format != "table" && format != "json" {
		return fmt.Errorf("format %q: want table or json: %w", format, errdefs.ErrInvalidArgument)
	}
	return nil
}

func writeLines(w io.Writer, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	_, err := io.WriteString(w, strings.Join(lines, "\n")+"\n")
	return writing(err)
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return writing(e.Encode(v))
}

func writeTable(w io.Writer, header []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = printable(cell)
		}
		if _, err := fmt.Fprintln(t, strings.Join(cells, "\t")); err != nil {
			return writing(err)
		}
	}
	return writing(t.Flush())
}

// printable returns text from an image or a registry in a form that can be shown on one line, without control
// characters.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsControl(r):
			return utf8.RuneError
		}
		return r
	}, text)
}

// writing wraps an error of writing output. If the output has no reader, the program exits as if by SIGPIPE.
func writing(err error) error {
	if errors.Is(err, syscall.EPIPE) {
		return exitCode(codeSignalledBase + int(syscall.SIGPIPE))
	}
	if err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// timestamp formats a time for JSON; the zero time is empty.
func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// size formats a number of bytes for tables.
func size(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%dB", n)
	}
	f, i := float64(n)/1024, 0
	for f >= 1024 && i < len(units)-1 {
		f /= 1024
		i++
	}
	return fmt.Sprintf("%.1f%ciB", f, units[i])
}

// limit formats a limit for tables; 0 means none.
func limit(n uint64, show func(uint64) string) string {
	if n == 0 {
		return "-"
	}
	return show(n)
}

// since formats the age of a time for tables.
func since(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := now.Sub(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}
