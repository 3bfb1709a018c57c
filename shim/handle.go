package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/durable"
	"github.com/cleatproject/cleat/proto/runcopts"
	"github.com/cleatproject/cleat/proto/types"
)

// Files that the shim keeps in the bundle, next to exit.json (see internal/exitrecord).
const (
	initPidFile = "init.pid"  // pid of the container's init, written by the OCI runtime
	shimPidFile = "shim.pid"  // pid of the shim, which holds a lock on it (flock)
	handleFile  = "shim.json" // data for `delete` and for another shim; see handle
	addressFile = "address"   // the shim's address, for daemons up to 1.7
	logFIFO     = "log"       // stderr of the shim, if the daemon created it
)

const defaultRuntime = "runc"

// handle holds what outlives the shim: what its `delete` command needs to clean up, and what another
// shim needs to continue (see adopt.go). Readers ignore unknown fields and accept a handle with only
// the first five, which is all that older shims wrote.
type handle struct {
	Version       int    `json:"version"` // 1
	ID            string `json:"id"`
	Binary        string `json:"binary"`
	Root          string `json:"root"`
	SystemdCgroup bool   `json:"systemd_cgroup,omitempty"`

	Stdin       string `json:"stdin,omitempty"`
	Stdout      string `json:"stdout,omitempty"`
	Stderr      string `json:"stderr,omitempty"`
	Terminal    bool   `json:"terminal,omitempty"`
	StdioOwner  string `json:"stdio_owner,omitempty"`  // see Paths
	StdinClosed bool   `json:"stdin_closed,omitempty"` // CloseIO was called
	IOUID       uint32 `json:"io_uid,omitempty"`
	IOGID       uint32 `json:"io_gid,omitempty"`
	Mounted     bool   `json:"mounted,omitempty"` // something is mounted at rootfs
	ShimCgroup  string `json:"shim_cgroup,omitempty"`

	// Written before Create and Run are answered. StartTime (reaper.StartTime) makes Pid an
	// identity; 0 if the init had ended already.
	Pid       int    `json:"pid,omitempty"`
	StartTime uint64 `json:"start_time,omitempty"`
	Cgroup    string `json:"cgroup,omitempty"` // the init's /proc/PID/cgroup
	// Written before a start is published or answered.
	Started   bool      `json:"started,omitempty"`
	StartedAt time.Time `json:"started_at,omitzero"`
}

// note changes the handle and writes it, so that a reader sees the old one or the new. This needs
// no sync: a bundle does not survive a reboot.
func (c *container) note(change func(*handle)) error {
	c.handleMu.Lock()
	defer c.handleMu.Unlock()
	change(&c.handle)
	data, err := json.Marshal(c.handle)
	if err != nil {
		return fmt.Errorf("encode handle: %w", err)
	}
	temp := c.file("." + handleFile)
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return fmt.Errorf("write handle: %w", err)
	}
	if err := durable.RenameUnsynced(temp, c.file(handleFile)); err != nil {
		return fmt.Errorf("write handle: %w", err)
	}
	return nil
}

// lock makes this process the bundle's only shim until it exits or calls unlock. It returns
// errdefs.ErrUnavailable if another shim holds the bundle.
func (c *container) lock() (err error) {
	f, err := os.OpenFile(c.file(shimPidFile), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write pid of shim: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("bundle %s has another shim: %w: %w", c.bundle, err, errdefs.ErrUnavailable)
	}
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("write pid of shim: %w", err)
	}
	if _, err := f.WriteString(strconv.Itoa(os.Getpid())); err != nil {
		return fmt.Errorf("write pid of shim: %w", err)
	}
	c.held = f
	return nil
}

// unlock releases the bundle for another shim.
func (c *container) unlock() error {
	if c.held == nil {
		return nil
	}
	f := c.held
	c.held = nil
	return f.Close()
}

func readHandle(bundle string) (handle, error) {
	data, err := os.ReadFile(filepath.Join(bundle, handleFile))
	if err != nil {
		return handle{}, fmt.Errorf("read handle: %w", err)
	}
	return parseHandle(data)
}

func parseHandle(data []byte) (handle, error) {
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

// decodeOptions decodes a request's runtime options; none means the defaults.
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

// runtimeRoot returns the OCI runtime's state directory for a namespace: below the one in the
// options, or else next to the bundles, so that two daemons never share one. For bundles below
// /run/containerd this is the one that containerd's own shim uses.
func runtimeRoot(option, bundle, namespace string) string {
	if option != "" {
		return filepath.Join(option, namespace)
	}
	// STATE/io.containerd.runtime.v2.task/NS/ID
	return filepath.Join(filepath.Dir(filepath.Dir(filepath.Dir(bundle))), "runc", namespace)
}
