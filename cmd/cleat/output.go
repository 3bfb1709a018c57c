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

// listFlags are how a list is shown.
type listFlags struct {
	format string
	quiet  bool
}

func (l *listFlags) declare(fs *pflag.FlagSet) {
	fs.StringVar(&l.format, "format", "table", "`table` for people or json for programs")
	fs.BoolVarP(&l.quiet, "quiet", "q", false, "print names only")
}

// show prints rows as the flags say: what json makes of them, the first column alone, or a table.
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

// checkFormat refuses what is neither of the formats.
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

// printable is a text of others, of an image or a registry, as it can be shown in a line: without what a
// terminal would obey.
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

// writing says what an error of writing output was; that nobody reads any more is nobody's error.
func writing(err error) error {
	if errors.Is(err, syscall.EPIPE) {
		return exitCode(codeSignalledBase + int(syscall.SIGPIPE))
	}
	if err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// timestamp is a time for programs, empty where there is none.
func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// size is a number of bytes for people.
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

// limit is a limit for people.
func limit(n uint64, show func(uint64) string) string {
	if n == 0 {
		return "-"
	}
	return show(n)
}
