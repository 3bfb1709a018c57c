package dirs

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/guest"
	"github.com/cleatproject/cleat/mount"
)

func probed(t *testing.T) []string {
	t.Helper()
	d, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	options, err := OverlayOptions(d)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(d.Root()); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	return options
}

// The kernel's overlay has no feature enabled.
func TestOverlayOptions_PlainKernel(t *testing.T) {
	if !guest.Inside(t, guest.Options{Overlay: "metacopy=off redirect_dir=off index=off"}) {
		return
	}
	if got := probed(t); !slices.Equal(got, []string{"index=off"}) {
		t.Errorf("got %q", got)
	}
}

// The kernel's overlay has all features enabled.
func TestOverlayOptions_KernelWithAllFeatures(t *testing.T) {
	if !guest.Inside(t, guest.Options{Overlay: "metacopy=on redirect_dir=on index=on"}) {
		return
	}
	got := probed(t)
	if !slices.Equal(got, []string{"index=off", "metacopy=off", "redirect_dir=off"}) {
		t.Errorf("got %q", got)
	}
	p := overlayProbe{dir: t.TempDir(), mount: mount.Detached}
	// The probe detects the features; otherwise the test would show nothing.
	if h, err := p.try([]string{"index=off"}); err != nil || !h.metacopy || !h.redirect {
		t.Errorf("without options: %+v, %v", h, err)
	}
	if h, err := p.try(got); err != nil || h.metacopy || h.redirect {
		t.Errorf("with them: %+v, %v", h, err)
	}
}

func TestOverlayOptions_KernelThatRedirects(t *testing.T) {
	if !guest.Inside(t, guest.Options{Overlay: "redirect_dir=on metacopy=off"}) {
		return
	}
	if got := probed(t); !slices.Equal(got, []string{"index=off", "metacopy=off", "redirect_dir=off"}) {
		t.Errorf("got %q", got)
	}
}

// knowing is a kernel that refuses some options, and passes on others.
func knowing(refuses, ignores string) func([]mount.Mount) (*os.File, error) {
	return func(ms []mount.Mount) (*os.File, error) {
		if refuses != "" && slices.Contains(ms[0].Options, refuses) {
			return nil, fmt.Errorf("mount: %w", unix.EINVAL)
		}
		if ignores != "" {
			m := ms[0]
			m.Options = append([]string{"redirect_dir=on"}, slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == ignores })...)
			ms = []mount.Mount{m}
		}
		return mount.Detached(ms)
	}
}

func TestOverlayOptions_UnknownOptions(t *testing.T) {
	plain := overlayProbe{dir: t.TempDir(), mount: mount.Detached}
	h, err := plain.try(nil)
	if err != nil {
		t.Fatal(err)
	}
	var off []string
	if h.metacopy || h.redirect {
		off = []string{"metacopy=off", "redirect_dir=off"}
	}
	p := overlayProbe{dir: t.TempDir(), mount: knowing("index=off", "")}
	if got, err := p.options(false); err != nil || !slices.Equal(got, off) {
		t.Errorf("without the index: %q, %v; want %q", got, err, off)
	}
	p = overlayProbe{dir: t.TempDir(), mount: knowing("userxattr", "")}
	if got, err := p.options(true); err != nil || !slices.Equal(got, off) {
		t.Errorf("without userxattr: %q, %v; want %q", got, err, off)
	}
	p = overlayProbe{dir: t.TempDir(), mount: knowing("", "redirect_dir=off")}
	if got, err := p.options(false); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "with every option") {
		t.Errorf("one that redirects nevertheless: %q, %v", got, err)
	}
	tried := 0
	p = overlayProbe{dir: t.TempDir(), mount: func([]mount.Mount) (*os.File, error) { tried++; return nil, unix.ENODEV }}
	if _, err := p.options(false); !errdefs.IsFailedPrecondition(err) || !errors.Is(err, unix.ENODEV) || tried != 1 {
		t.Errorf("without overlay: %v after %d tries", err, tried)
	}
}
