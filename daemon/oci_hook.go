package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxHookState bounds the state that an OCI runtime gives a hook.
const maxHookState = 4 << 20

// OCIHook runs a program as a hook of an OCI runtime, with the container's state in its arguments: a
// template in one of them, in the syntax of text/template, has the functions id, pid, status, bundle,
// rootfs and annotation NAME. The program replaces this process, and gets its environment. OCIHook
// returns only if that fails.
func OCIHook(args []string, state io.Reader) error {
	argv, err := hookArguments(args, state)
	if err != nil {
		return fmt.Errorf("oci-hook: %w", err)
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return fmt.Errorf("oci-hook: %w: %w", err, errdefs.ErrNotFound)
	}
	return fmt.Errorf("oci-hook: run %s: %w", path, unix.Exec(path, argv, os.Environ()))
}

// hookArguments returns args with their templates replaced.
func hookArguments(args []string, in io.Reader) ([]string, error) {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return nil, fmt.Errorf("missing program: %w", errdefs.ErrInvalidArgument)
	}
	data, err := io.ReadAll(io.LimitReader(in, maxHookState))
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	var state specs.State
	if err := json.Unmarshal(data, &state); err != nil {
		return nil, fmt.Errorf("read state: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	functions := template.FuncMap{
		"id":     func() string { return state.ID },
		"pid":    func() int { return state.Pid },
		"status": func() string { return string(state.Status) },
		"bundle": func() string { return state.Bundle },
		"rootfs": func() (string, error) { return hookRootfs(state.Bundle) },
		"annotation": func(name string) string {
			return state.Annotations[name]
		},
	}
	out := make([]string, 0, len(args))
	for _, arg := range args {
		t, err := template.New("argument").Funcs(functions).Parse(arg)
		if err != nil {
			return nil, errors.Join(err, errdefs.ErrInvalidArgument)
		}
		var text strings.Builder
		if err := t.Execute(&text, nil); err != nil {
			return nil, err
		}
		out = append(out, text.String())
	}
	return out, nil
}

// hookRootfs returns the path of the root file system in a bundle's spec.
func hookRootfs(bundle string) (string, error) {
	data, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return "", fmt.Errorf("read spec: %w", err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return "", fmt.Errorf("read spec: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	switch {
	case spec.Root == nil:
		return "", fmt.Errorf("spec of %s has no root: %w", bundle, errdefs.ErrInvalidArgument)
	case filepath.IsAbs(spec.Root.Path):
		return spec.Root.Path, nil
	default:
		return filepath.Join(bundle, spec.Root.Path), nil
	}
}
