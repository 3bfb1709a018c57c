package activation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/template"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/mount"
)

// transform applies a step's transforms, from left to right, to its mount. active are the mounts before;
// own is the directory in which the transform mkdir may work, in addition to these.
func transform(ctx context.Context, s step, active []Active, own string) (mount.Mount, error) {
	m := s.mount
	m.Options = slices.Clone(m.Options)
	var err error
	for _, t := range s.transforms {
		switch t {
		case formatting:
			err = format(&m, active)
		case makingFS:
			err = makeFileSystem(ctx, &m)
		case makingDirs:
			err = makeDirectories(&m, active, own)
		}
		if err != nil {
			return mount.Mount{}, fmt.Errorf("%s: %w", t, err)
		}
	}
	return m, nil
}

// format fills in the templates of a mount's source, target and options (text/template), which may refer to
// the mounts before by their index:
//
//	{{ source N }}       its source; of a loop device, the device
//	{{ target N }}       its target
//	{{ mount N }}        its mount point
//	{{ overlay N M }}    the mount points from N to M, in the form of overlay's lowerdir
func format(m *mount.Mount, active []Active) error {
	funcs := templateFuncs(active)
	fill := func(text *string) error {
		if !strings.Contains(*text, "{{") {
			return nil
		}
		t, err := template.New("").Funcs(funcs).Parse(*text)
		if err != nil {
			return fmt.Errorf("%.200q: %w: %w", *text, err, errdefs.ErrInvalidArgument)
		}
		var out strings.Builder
		if err := t.Execute(&limited{&out}, nil); err != nil {
			return fmt.Errorf("%.200q: %w: %w", *text, err, errdefs.ErrInvalidArgument)
		}
		*text = out.String()
		return nil
	}
	fields := []*string{&m.Source, &m.Target}
	for i := range m.Options {
		fields = append(fields, &m.Options[i])
	}
	for _, f := range fields {
		if err := fill(f); err != nil {
			return err
		}
	}
	return nil
}

// templateFuncs are the functions of a template, given the mounts before.
func templateFuncs(active []Active) template.FuncMap {
	at := func(i int) (Active, error) {
		if i < 0 || i >= len(active) {
			return Active{}, fmt.Errorf("no mount %d before this one", i)
		}
		return active[i], nil
	}
	field := func(get func(Active) string) func(int) (string, error) {
		return func(i int) (string, error) {
			a, err := at(i)
			return get(a), err
		}
	}
	return template.FuncMap{
		"source": field(func(a Active) string { return a.Source }),
		"target": field(func(a Active) string { return a.Target }),
		"mount":  field(func(a Active) string { return a.Point }),
		"overlay": func(from, to int) (string, error) {
			step := 1
			if to < from {
				step = -1
			}
			var dirs []string
			for i := from; ; i += step {
				a, err := at(i)
				if err != nil {
					return "", err
				}
				dirs = append(dirs, mount.EscapeOverlayPath(a.Point))
				if i == to {
					return strings.Join(dirs, ":"), nil
				}
			}
		},
	}
}

// limited bounds the memory of a template: no option is as long as this.
type limited struct{ *strings.Builder }

const longestField = 1 << 20

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > longestField {
		return 0, fmt.Errorf("result exceeds %d bytes", longestField)
	}
	return l.Builder.Write(p)
}

// takeOptions removes the options with a prefix from a mount, and returns them as name and value.
func takeOptions(m *mount.Mount, prefix string) (taken [][2]string) {
	m.Options = slices.DeleteFunc(m.Options, func(o string) bool {
		rest, ok := strings.CutPrefix(o, prefix)
		if ok {
			name, value, _ := strings.Cut(rest, "=")
			taken = append(taken, [2]string{name, value})
		}
		return ok
	})
	return taken
}
