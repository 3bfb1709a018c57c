package main

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cleatproject/cleat/client"
)

func TestBars_WithoutTerminal_PrintsCompletedParts(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	a := &app{stderr: w}
	for _, quiet := range []bool{false, true} {
		b := a.newBars(quiet)
		b.update([]client.Part{{Digest: "sha256:0123456789abcdef", State: "waiting", Total: 2048}})
		b.update([]client.Part{{Digest: "sha256:0123456789abcdef", State: "downloading", Done: 1024, Total: 2048}})
		b.update([]client.Part{{Digest: "sha256:0123456789abcdef", State: "downloaded", Done: 2048, Total: 2048}})
		b.update([]client.Part{{Digest: "sha256:0123456789abcdef", State: "downloaded", Done: 2048, Total: 2048}})
		b.finish()
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := r.Read(buf)
	if got := string(buf[:n]); err != nil || got != "sha256:0123456789ab: downloaded 2.0KiB\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestBars_OnTerminal_Redraws(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	b := (&app{stderr: w}).newBars(false)
	b.live = true
	for _, done := range []int64{0, 512, 1024} {
		b.update([]client.Part{
			{Digest: "sha256:aaaa", State: "downloading", Done: done, Total: 1024},
			{Digest: "sha256:bbbb", State: "waiting", Total: 10},
		})
	}
	b.finish()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	text := string(raw)
	if err != nil || strings.Count(text, "\n") != 6 || strings.Count(text, "\x1b[2A") != 2 || strings.Count(text, "sha256:bbbb") != 3 {
		t.Errorf("%q, %v", text, err)
	}
	for _, line := range strings.Split(text, "\n") {
		if len(strings.Trim(line, "\r\x1b[K2A")) >= 80 {
			t.Errorf("%q is wider than the screen", line)
		}
	}
}

func TestBarLine(t *testing.T) {
	began := time.Unix(100, 0)
	for _, c := range []struct {
		b    bar
		want []string
		not  string
	}{
		{bar{Part: client.Part{Digest: "sha256:0123456789abcdef", State: "waiting", Total: 4096}}, []string{"waiting", "[" + strings.Repeat(" ", barWidth) + "]", "4.0KiB"}, "/s"},
		{
			bar{Part: client.Part{State: "downloading", Done: 2048, Total: 4096}, began: began, last: began.Add(2 * time.Second)},
			[]string{strings.Repeat("=", barWidth/2) + " ", "1.0KiB/s"},
			"==============",
		},
		// The rate does not include bytes from before the transfer.
		{bar{Part: client.Part{State: "downloading", Done: 4096, Total: 4096}, from: 2048, began: began, last: began.Add(time.Second)}, []string{"2.0KiB/s"}, "4.0KiB/s"},
		{bar{Part: client.Part{State: "downloaded", Done: 9, Total: 0}}, []string{"downloaded"}, "/s"},
	} {
		line := c.b.line(120)
		for _, w := range c.want {
			if !strings.Contains(line, w) {
				t.Errorf("%q lacks %q", line, w)
			}
		}
		if strings.Contains(line, c.not) {
			t.Errorf("%q holds %q", line, c.not)
		}
	}
}

func TestBarLine_NarrowScreen_KeepsRate(t *testing.T) {
	b := bar{
		Part:  client.Part{Digest: "sha256:0123456789abcdef", State: "downloading", Done: 1000 << 20, Total: 1001 << 20},
		began: time.Unix(100, 0), last: time.Unix(101, 0),
	}
	for width, bar := range map[int]int{120: barWidth, 79: 79 - 32 - longestTail, 69: 0} {
		line := b.line(width)
		if !strings.HasSuffix(line, "1000.0MiB/s") || len(line) > width || strings.Count(line, "=") != max(0, bar-1) {
			t.Errorf("%d: %q has %d characters", width, line, len(line))
		}
	}
}

func TestBars_TooManyParts_ShowsIncompleteOnes(t *testing.T) {
	b := &bars{parts: map[string]*bar{}}
	for d, state := range map[string]string{"a": "downloaded", "b": "downloading", "c": "exists", "d": "waiting"} {
		b.parts[d] = &bar{Part: client.Part{Digest: d, State: state}}
	}
	b.order = []string{"a", "b", "c", "d"}
	if got := strings.Join(b.unfinished(3), ""); got != "bda" {
		t.Error(got)
	}
}
