package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/archive"
)

// shell returns a processor that runs a shell script.
func shell(id, accepts, returns, script string) archive.Processor {
	return archive.Processor{ID: id, Accepts: []string{accepts}, Returns: returns, Path: "/bin/sh", Args: []string{"-c", script}}
}

func process(ctx context.Context, mediaType string, data []byte, payloads map[string][]byte, ps ...archive.Processor) (string, error) {
	r, err := archive.Process(ctx, ps, mediaType, bytes.NewReader(data), payloads)
	if err != nil {
		return "", err
	}
	got, err := io.ReadAll(r)
	return string(got), errors.Join(err, r.Close())
}

func TestProcess_InSequence(t *testing.T) {
	ps := []archive.Processor{
		shell("second", "b", "c", "tr x y"), shell("first", "a", "b", "tr w x"), shell("none", "d", "e", "exit 1"),
	}
	for in, want := range map[string]string{"a": "c", "b": "c", "c": "c", "d": "e", "f": "f"} {
		if got := archive.Processed(ps, in); got != want {
			t.Errorf("%s becomes %s, want %s", in, got, want)
		}
	}
	for in, want := range map[string]string{"a": "yyz", "b": "wyz", "f": "wxz"} {
		got, err := process(t.Context(), in, []byte("wxz"), nil, ps...)
		if err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", in, got, err, want)
		}
	}
	big := text()
	got, err := process(t.Context(), "a", big, nil, shell("cat", "a", "b", "cat"))
	if err != nil || got != string(big) {
		t.Errorf("%d bytes of %d came back, %v", len(got), len(big), err)
	}
}

func TestProcess_PassesTypeAndPayload(t *testing.T) {
	const script = `cat >/dev/null; echo "$STREAM_PROCESSOR_MEDIATYPE $KEY $SECRET"; cat "$STREAM_PROCESSOR_PIPE"; cat <&3`
	t.Setenv("SECRET", "x")
	p := shell("payload", "a/b+c", "d", script)
	p.Env = []string{"KEY=value", "PATH=/usr/bin:/bin"}
	before := descriptors(t)
	got, err := process(t.Context(), "a/b+c", []byte("in"), map[string][]byte{"payload": []byte("payload."), "other": []byte("no")}, p)
	if err != nil || got != "a/b+c value \npayload.payload." {
		t.Errorf("got %q, %v", got, err)
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, before there were %d", after, before)
	}
}

func TestProcess_Failures(t *testing.T) {
	writable := filepath.Join(t.TempDir(), "writable")
	if err := os.WriteFile(writable, []byte("#!/bin/sh\ncat\n"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(writable, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		p    archive.Processor
		want string
	}{
		"at once":         {shell("p", "a", "b", "echo no key >&2; exit 3"), "exit status 3: no key"},
		"at the end":      {shell("p", "a", "b", "cat; echo cut short >&2; exit 1"), "cut short"},
		"long complaint":  {shell("p", "a", "b", "yes | head -c 100000 >&2; echo the end >&2; exit 1"), "the end"},
		"missing":         {archive.Processor{ID: "p", Accepts: []string{"a"}, Returns: "b", Path: "/nowhere"}, "/nowhere"},
		"writable by all": {archive.Processor{ID: "p", Accepts: []string{"a"}, Returns: "b", Path: writable}, "only root can write"},
	} {
		_, err := process(t.Context(), "a", []byte("data"), nil, c.p)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "stream processor p") {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && len(err.Error()) > 2000 {
			t.Errorf("%s: the error has %d bytes", name, len(err.Error()))
		}
	}
	for _, p := range []archive.Processor{
		{ID: "p", Accepts: []string{"a"}, Returns: "b", Path: "cat"},
		{ID: "p", Returns: "b", Path: "/bin/cat"},
		{ID: "p", Accepts: []string{"a"}, Path: "/bin/cat"},
		shell("p", "a", "a", ""),
	} {
		if err := p.Check(); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

// A processor that hangs, with a child that holds its pipes, ends with the context.
func TestProcess_EndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, err := archive.Process(ctx, []archive.Processor{shell("p", "a", "b", "sleep 1000 & echo x; wait")}, "a", bytes.NewReader(text()), nil)
	if err != nil {
		t.Fatal(err)
	}
	var buf [2]byte
	if _, err := io.ReadFull(r, buf[:]); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(r); err == nil {
		t.Error("the processor ended by itself")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestDiff_ClampsLaterTimes(t *testing.T) {
	clamp := time.Unix(1000, 0)
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "f"), nil, 0o600))
	var b bytes.Buffer
	must(t, archive.Diff(t.Context(), &b, "", root, archive.DiffOptions{Latest: clamp}))
	for r := tar.NewReader(&b); ; {
		hdr, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		must(t, err)
		if !hdr.ModTime.Equal(clamp) {
			t.Errorf("%s is of %s", hdr.Name, hdr.ModTime)
		}
	}
}
