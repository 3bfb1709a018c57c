package registry

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

const someDigest = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

func TestParse_AcceptsDockerReferences(t *testing.T) {
	for _, tt := range []struct{ text, host, full string }{
		{"busybox", "docker.io", "docker.io/library/busybox:latest"},
		{"busybox:1.36", "docker.io", "docker.io/library/busybox:1.36"},
		{"docker.io/busybox", "docker.io", "docker.io/library/busybox:latest"},
		{"index.docker.io/library/busybox", "docker.io", "docker.io/library/busybox:latest"},
		{"user/app", "docker.io", "docker.io/user/app:latest"},
		{"localhost/x", "localhost", "localhost/x:latest"},
		{"localhost:5000/x", "localhost:5000", "localhost:5000/x:latest"},
		{"127.0.0.1:5000/a/b/c:v1", "127.0.0.1:5000", "127.0.0.1:5000/a/b/c:v1"},
		{"[::1]:5000/x", "[::1]:5000", "[::1]:5000/x:latest"},
		{"ghcr.io/o/r@" + someDigest, "ghcr.io", "ghcr.io/o/r@" + someDigest},
		{"busybox:1.36@" + someDigest, "docker.io", "docker.io/library/busybox@" + someDigest},
	} {
		r, err := Parse(tt.text)
		if err != nil || r.Host != tt.host || r.String() != tt.full {
			t.Errorf("%s: %+v (%s), %v", tt.text, r, r, err)
		}
	}
}

func TestParse_RefusesInvalidReferences(t *testing.T) {
	for _, text := range []string{
		"", " ", "a/UPPER", "a//b", "a:", "a@sha256:12", "https://docker.io/busybox", "docker://busybox",
		"-x", "../../etc/passwd", "a:b:c", strings.Repeat("a", 300), strings.Repeat("0", 64),
	} {
		if r, err := Parse(text); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v, %v", text, r, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"busybox", "localhost:5000/x:y", "a/b@" + someDigest, "[::1]:1/x", "A/b", "a:@b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(r.String())
		if err != nil || again != r {
			t.Errorf("%q: %+v, and again %+v, %v", text, r, again, err)
		}
		if r.target() == "" || strings.ContainsAny(r.String(), " \n?#") {
			t.Errorf("%q: %+v", text, r)
		}
	})
}
