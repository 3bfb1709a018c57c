package main

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/client"
)

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]syscall.Signal{
		"TERM": syscall.SIGTERM, "sigkill": syscall.SIGKILL, "9": syscall.SIGKILL, "Usr1": syscall.SIGUSR1, "64": 64,
		"SIGRTMIN+3": 37, "rtmin": 34, "RTMAX": 64, "RTMAX-14": 50, "RTMIN+30": 64,
	} {
		if got, err := parseSignal(text); err != nil || got != want {
			t.Errorf("%q: got %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "65", "-9", "SIG", "TERMINATE", "RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMAX-31", "RTMIN+", "RTMIN3", "RTMIN+x"} {
		if got, err := parseSignal(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func TestParseGrace(t *testing.T) {
	for seconds, want := range map[float64]time.Duration{0: 0, 0.5: time.Second / 2, 10: 10 * time.Second, -1: forEver, 1e18: forEver} {
		if got, err := parseGrace(seconds); err != nil || got != want {
			t.Errorf("%v: got %v, %v; want %v", seconds, got, err, want)
		}
	}
	if got, err := parseGrace(math.NaN()); err == nil {
		t.Errorf("no number: got %v", got)
	}
}

func TestEscalation(t *testing.T) {
	var e escalation
	now := time.Unix(0, 0)
	for i, step := range []struct {
		after time.Duration
		sig   syscall.Signal
		want  syscall.Signal
		warn  bool
	}{
		{0, syscall.SIGINT, syscall.SIGINT, false},
		{time.Second, syscall.SIGUSR1, syscall.SIGUSR1, false},
		{time.Second, syscall.SIGTERM, syscall.SIGTERM, true},
		{10 * time.Second, syscall.SIGINT, syscall.SIGINT, false},
		{time.Second, syscall.SIGINT, syscall.SIGINT, true},
		{time.Second, syscall.SIGINT, syscall.SIGKILL, false},
	} {
		now = now.Add(step.after)
		if got, warn := e.next(step.sig, now); got != step.want || warn != step.warn {
			t.Errorf("step %d: got %v, %v; want %v, %v", i, got, warn, step.want, step.warn)
		}
	}
}

func TestProxy_CancelsBeforeHold(t *testing.T) {
	p, ctx := newProxy(context.Background())
	defer p.close()
	p.take(syscall.SIGUSR1)
	if ctx.Err() != nil {
		t.Error("USR1 cancelled")
	}
	p.take(syscall.SIGTERM)
	p.take(syscall.SIGINT)
	if ctx.Err() == nil || p.cancelledBy() != syscall.SIGTERM {
		t.Errorf("TERM did not cancel: %v", p.cancelledBy())
	}
	if p.hold() {
		t.Error("hold says that nothing has cancelled")
	}
}

func TestProxy_KeepsSignalsUntilForward(t *testing.T) {
	p, ctx := newProxy(context.Background())
	defer p.close()
	if !p.hold() {
		t.Fatal("hold says that a signal has cancelled")
	}
	p.take(syscall.SIGINT)
	p.take(syscall.SIGUSR1)
	for range 2 * maxKept {
		p.take(syscall.SIGHUP)
	}
	sent := make(chan syscall.Signal, 3*maxKept)
	p.forward(func(s syscall.Signal) { sent <- s })
	if a, b := <-sent, <-sent; a != syscall.SIGINT || b != syscall.SIGUSR1 {
		t.Errorf("sent %v, %v", a, b)
	}
	for range maxKept - 2 {
		if s := <-sent; s != syscall.SIGHUP {
			t.Errorf("sent %v", s)
		}
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	if s := <-sent; s != syscall.SIGUSR2 {
		t.Errorf("sent %v", s)
	}
	if ctx.Err() != nil || p.cancelledBy() != 0 {
		t.Errorf("cancelled by %v: %v", p.cancelledBy(), ctx.Err())
	}
}

func TestSeekTail(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for _, tt := range []struct {
		log  string
		n    int64
		want string
	}{
		{"a\nb\nc\n", 2, "b\nc\n"},
		{"a\nb\nc", 2, "b\nc"},
		{"a\nb\nc\n", 0, ""},
		{"a\nb\n", 9, "a\nb\n"},
		{"", 3, ""},
		{"\n\n\n", 1, "\n"},
		{"a\n" + long + "\n" + long + "\nz\n", 2, long + "\nz\n"},
		{long + "\n", 1, long + "\n"},
	} {
		r := strings.NewReader(tt.log)
		if err := seekTail(r, tt.n); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != tt.want {
			t.Errorf("last %d of %.20q: got %.20q (%d), want %.20q (%d)", tt.n, tt.log, got, len(got), tt.want, len(tt.want))
		}
	}
}

func TestInTurn(t *testing.T) {
	unread := exitCode(codeSignalledBase + int(syscall.SIGPIPE))
	for name, c := range map[string]struct {
		errs   []error
		want   error
		called int
		stderr string
	}{
		"no error":  {[]error{nil, nil}, nil, 2, ""},
		"one error": {[]error{errors.New("one"), nil, errors.New("three")}, exitCode(1), 3, "cleat: one\ncleat: three\n"},
		"no reader": {[]error{errors.New("one"), unread, nil}, unread, 2, "cleat: one\n"},
	} {
		stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
		if err != nil {
			t.Fatal(err)
		}
		called := 0
		got := (&app{stderr: stderr}).inTurn(len(c.errs), func(i int) error { called++; return c.errs[i] })
		said, err := os.ReadFile(stderr.Name())
		if err := errors.Join(err, stderr.Close()); err != nil {
			t.Fatal(err)
		}
		if got != c.want || called != c.called || string(said) != c.stderr { //nolint:errorlint // the very value
			t.Errorf("%s: got %v after %d, %q", name, got, called, said)
		}
	}
}

func TestEnvironment_FilesThenFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("# comment\n\nFROM_FILE=1\nBOTH=file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CLEAT_TEST_HERE", "here")
	p := processFlags{env: []string{"BOTH=flag", "CLEAT_TEST_HERE", "CLEAT_TEST_NOT_SET"}, envFiles: []string{file}}
	got, err := p.environment()
	if want := "FROM_FILE=1 BOTH=file BOTH=flag CLEAT_TEST_HERE=here"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	p.env = []string{"=x"}
	if _, err := p.environment(); err == nil {
		t.Error("a variable without a name was taken")
	}
}

func TestReadEnvFile_ErrorsNameFileAndLine(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct{ text, want string }{
		"no name":  {"A=1\n\n=x\n", "line 3"},
		"zero":     {"A=1\n# B\nC=\x00\n", "line 3"},
		"too long": {"A=1\nB=" + strings.Repeat("x", longestLine) + "\n", "line 2"},
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		p := processFlags{envFiles: []string{file}}
		_, err := p.environment()
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), file+", "+c.want+":") {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
	for name, path := range map[string]string{"missing": filepath.Join(dir, "missing"), "a directory": dir} {
		p := processFlags{envFiles: []string{path}}
		if _, err := p.environment(); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestOneLine(t *testing.T) {
	id := strings.Repeat("ab", 32)
	got := oneLine(errors.New("run " + id + ": create " + id + "\nsecond\n"))
	if want := "run abababababab: create abababababab; second"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := oneLine(errors.New("it has\tlinux/\x1b[2J\u009b2Jé")); got != "it has linux/\ufffd[2J\ufffd2Jé" {
		t.Errorf("got %q", got)
	}
}

func TestOneLine_DropsRedundantClass(t *testing.T) {
	for text, want := range map[string]string{
		"format \"x\": want json: invalid argument":       "format \"x\": want json",
		"stop c: not running: failed precondition":        "stop c: not running",
		"image x: not found: not found":                   "image x: not found",
		"image x: not found":                              "image x: not found",
		"a: invalid argument\nb: not found: not found\nc": "a; b: not found; c",
	} {
		if got := oneLine(errors.New(text)); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestWriteTable_ReplacesControlCharacters(t *testing.T) {
	var out strings.Builder
	if err := writeTable(&out, []string{"A", "B"}, [][]string{{"x/\x1b[31m", "1\n2\t\u009b3"}}); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "A         B\nx/\ufffd[31m   1\ufffd2 \ufffd3\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{0: "0B", 1023: "1023B", 1536: "1.5KiB", 64 << 20: "64.0MiB", 3 << 40: "3.0TiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

func TestCompareStats(t *testing.T) {
	at := time.Unix(100, 0)
	got := compare(
		[]client.Metrics{{ID: "a", Time: at, CPU: time.Second}},
		[]client.Metrics{{ID: "b", Time: at}, {ID: "a", Time: at.Add(2 * time.Second), CPU: 2 * time.Second}},
	)
	if len(got) != 2 || got[0].ID != "a" || got[0].CPUPercent != 50 || got[1].CPUPercent != 0 {
		t.Errorf("got %+v", got)
	}
}
