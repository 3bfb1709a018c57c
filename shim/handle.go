package shim

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/runcopts"
	"github.com/cleatproject/cleat/proto/types"
)

// Files that the shim keeps in the bundle, beside exit.json (see internal/exitrecord).
const (
	initPidFile = "init.pid"  // pid of the container's init, written by the OCI runtime
	shimPidFile = "shim.pid"  // pid of the shim
	handleFile  = "shim.json" // what `delete` has to know; see handle
	addressFile = "address"   // where the shim listens, for daemons up to 1.7
	logFIFO     = "log"       // stderr of the shim, where the daemon made it
)

const defaultRuntime = "runc"

// handle is what outlives the shim, so that its `delete` command can clean up.
type handle struct {
	Version       int    `json:"version"` // 1
	ID            string `json:"id"`
	Binary        string `json:"binary"`
	Root          string `json:"root"`
	SystemdCgroup bool   `json:"systemd_cgroup,omitempty"`
}

// writeHandle needs no sync: a bundle does not outlive the machine's run.
func (c *container) writeHandle() error {
	data, err := json.Marshal(handle{
		Version: 1, ID: c.id, Binary: c.runtime.binary, Root: c.runtime.root, SystemdCgroup: c.runtime.systemdCgroup,
	})
	if err != nil {
		return fmt.Errorf("encode handle: %w", err)
	}
	if err := os.WriteFile(c.file(handleFile), data, 0o600); err != nil {
		return fmt.Errorf("write handle: %w", err)
	}
	if err := os.WriteFile(c.file(shimPidFile), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return fmt.Errorf("write pid of shim: %w", err)
	}
	return nil
}

func readHandle(bundle string) (handle, error) {
	data, err := os.ReadFile(filepath.Join(bundle, handleFile))
	if err != nil {
		return handle{}, fmt.Errorf("read handle: %w", err)
	}
	var h handle
	if err := json.Unmarshal(data, &h); err != nil {
		return handle{}, fmt.Errorf("read handle: %w", err)
	}
	if h.Version != 1 || h.ID == "" || h.Binary == "" || !filepath.IsAbs(h.Root) {
		return handle{}, fmt.Errorf("read handle: version %d, or a field is missing: %w", h.Version, errdefs.ErrInvalidArgument)
	}
	return h, nil
}

// optionsType is the type of the options that the shim understands.
const optionsType = "containerd.runc.v1.Options"

// decodeOptions reads a request's runtime options; none are the defaults.
func decodeOptions(a *types.Any) (*runcopts.Options, error) {
	opts := &runcopts.Options{}
	if a == nil || a.TypeUrl == "" && len(a.Value) == 0 {
		return opts, nil
	}
	if lastPart(a.TypeUrl) != optionsType {
		return nil, fmt.Errorf("runtime options of type %q: want %s: %w", a.TypeUrl, optionsType, errdefs.ErrInvalidArgument)
	}
	if err := opts.Unmarshal(a.Value); err != nil {
		return nil, fmt.Errorf("runtime options: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if opts.Root != "" && !filepath.IsAbs(opts.Root) {
		return nil, fmt.Errorf("runtime options: root %q: want an absolute path: %w", opts.Root, errdefs.ErrInvalidArgument)
	}
	return opts, nil
}

func lastPart(typeURL string) string { return filepath.Base(typeURL) }

// runtimeRoot is the OCI runtime's state directory for a namespace: below the one that the options
// name, or else beside the bundles, so that two daemons never share one. For bundles below
// /run/containerd it is what containerd's own shim uses.
func runtimeRoot(option, bundle, namespace string) string {
	if option != "" {
		return filepath.Join(option, namespace)
	}
	// STATE/io.containerd.runtime.v2.task/NS/ID
	return filepath.Join(filepath.Dir(filepath.Dir(filepath.Dir(bundle))), "runc", namespace)
}
