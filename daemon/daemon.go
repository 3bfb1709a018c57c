// Package daemon assembles cleatd: stores, runtime, services and listeners, according to the
// configuration. Assembly is explicit and in one place (daemon.go); nothing registers itself.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/daemon/api"
	"github.com/cleatproject/cleat/daemon/config"
	"github.com/cleatproject/cleat/daemon/service"
	"github.com/cleatproject/cleat/daemon/service/restart"
	"github.com/cleatproject/cleat/daemon/streams"
	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/image/registry"
	"github.com/cleatproject/cleat/internal/hostproc"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/internal/version"
	"github.com/cleatproject/cleat/mount/activation"
	"github.com/cleatproject/cleat/reaper"
	"github.com/cleatproject/cleat/runtime"
)

// daemon holds everything that was assembled, in the order in which it must be closed.
type daemon struct {
	stores  stores
	tasks   *runtime.Manager
	svc     *service.Service
	servers *servers
	close   undo.Stack
}

// Run runs a daemon until ctx ends, then stops it without touching containers. ready is called once
// the API answers; it may be nil.
func Run(ctx context.Context, cfg config.Config, ready func()) (err error) {
	if err := cfg.Complete(); err != nil {
		return err
	}
	log, err := cfg.Logger()
	if err != nil {
		return err
	}
	for _, w := range cfg.Warnings() {
		log.Warn(w)
	}
	d, err := assemble(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close.Run()) }()
	if err := d.svc.Tidy(ctx); err != nil {
		log.Error("cannot tidy up", "error", err)
	}
	if err := d.servers.listen(cfg); err != nil {
		return err
	}
	// The sockets accept connections from now on; adoption continues in the background.
	if err := d.tasks.Recover(d.svc.Containers.Ran); err != nil {
		return err
	}
	serving := d.servers.serve()
	log.Info("serving", "address", cfg.Address, "ttrpc", cfg.TTRPCAddress, "version", version.Version())
	if ready != nil {
		ready()
	}
	d.svc.Begin()
	monitor := restart.Start(restart.Config{DB: d.stores.db, Events: d.stores.events, Tasks: d.tasks, Hub: d.svc.Hub, Containers: d.svc.Containers, Log: log})
	d.close.Push("close restart monitor", func() error { monitor.Close(); return nil })
	select {
	case <-ctx.Done():
		log.Info("stopping; containers keep running")
		return d.servers.stop()
	case err := <-serving:
		return errors.Join(err, d.servers.stop())
	}
}

// assemble opens the stores and connects the parts; the whole daemon on one page.
func assemble(ctx context.Context, cfg config.Config, log *slog.Logger) (_ *daemon, err error) {
	d := &daemon{}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close.Run())
		}
	}()
	if err := MakeDirs(cfg); err != nil {
		return nil, err
	}
	unlock, err := LockDir(ctx, cfg.State)
	if err != nil {
		return nil, err
	}
	d.close.Push("unlock state directory", unlock)

	if d.stores, err = openStores(cfg, log, &d.close); err != nil {
		return nil, err
	}
	uuid, err := loadUUID(cfg.Root)
	if err != nil {
		return nil, err
	}
	drivers := OpenSnapshotters(cfg.Root, uuid, cfg.ProxyPlugins, log, &d.close)

	if err := joinCgroup(cfg.Cgroup.Path); err != nil {
		return nil, err
	}
	attributes, defaults := detach(log)
	gone := func() { d.svc.Cgroups.TaskGone() } // tasks exist only once the service does
	if d.tasks, err = openRuntime(ctx, cfg, d.stores.events, attributes, gone, log, &d.close); err != nil {
		return nil, err
	}
	mounts, err := activation.Open(filepath.Join(cfg.State, "m"), cfg.Root)
	if err != nil {
		return nil, err
	}
	d.svc = service.New(service.Config{
		Mounts: mounts,
		DB:     d.stores.db, Content: d.stores.content, Snapshotters: drivers.Working, Unavailable: drivers.Failed, DefaultSnapshotter: cfg.Snapshotter,
		DefaultRuntime: cfg.Runtime, Runtime: d.tasks, Events: d.stores.events, Root: cfg.Root,
		CgroupParent: cfg.CgroupParent, ProcessDefaults: defaults, Schedule: cfg.GC.Service(), Log: log, Helpers: helpers(cfg), Processors: cfg.Processors(), Limits: cfg.Unpack.Limits(),
		Registries: registry.New(registry.Options{
			ConfigPath: cfg.RegistryConfigPath, UserAgent: "cleat/" + version.Version(), Chunk: cfg.RegistryUploadChunk,
			Ranges: registry.Ranges{From: cfg.RegistryRangeFrom, AtOnce: cfg.RegistryRanges}, Log: log,
		}),
	})
	d.close.Push("close service", func() error { d.svc.Close(); return nil })
	if d.stores.db.Broken() == nil {
		if err := d.svc.Namespaces.Ensure(ctx, config.DefaultNamespace); err != nil {
			return nil, err
		}
	}
	d.servers, err = d.newServers(cfg, uuid, drivers, log)
	return d, err
}

// newServers creates the servers of the API, with the identity that they report.
func (d *daemon) newServers(cfg config.Config, uuid string, drivers Snapshotters, log *slog.Logger) (*servers, error) {
	users, err := cfg.Access()
	if err != nil {
		return nil, err
	}
	return newServers(api.Parts{
		DB: d.stores.db, Events: d.stores.events, Tasks: d.tasks, Blobs: d.svc.Blobs, Snapshots: d.svc.Snapshots, Namespaces: d.svc.Namespaces,
		Activations: d.svc.Activations, Images: d.svc.Images, Transfers: d.svc.Transfers, Containers: d.svc.Containers, Sandboxes: d.svc.Sandboxes,
		GC: d.svc.GC, Hub: d.svc.Hub, Streams: streams.New(streams.Options{}), CgroupParent: cfg.CgroupParent, Log: log,
		Identity: api.Identity{
			Version: version.API(), Revision: version.Revision(), UUID: uuid,
			Snapshotters: slices.Sorted(maps.Keys(drivers.Working)), Unavailable: drivers.Failed, Root: cfg.Root,
		},
	}, users, log)
}

// openRuntime creates the manager of tasks with the reaper of its shims.
func openRuntime(
	ctx context.Context, cfg config.Config, log *events.Log, attributes hostproc.Attributes, gone func(), to *slog.Logger, closing *undo.Stack,
) (*runtime.Manager, error) {
	children := reaper.NewOwn()
	closing.Push("close reaper", children.Close)
	binary, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own binary: %w", err)
	}
	tasks, err := runtime.New(runtime.Config{
		State: cfg.State, Root: cfg.Root, Address: cfg.Address, TTRPCAddress: cfg.TTRPCAddress,
		Binary: binary, Runtimes: cfg.Runtimes, Debug: to.Enabled(ctx, slog.LevelDebug), Reaper: children, Attributes: attributes,
		Publish: func(e events.Event) error { _, err := log.Append(e); return err },
		Written: log.Written, Gone: gone,
		Log: to,
	})
	if err != nil {
		return nil, err
	}
	closing.Push("close runtime", tasks.Close)
	return tasks, nil
}

// helpers returns the system's decompressors, unless the configuration disables them.
func helpers(cfg config.Config) []archive.Helper {
	if !cfg.DecompressHelpers {
		return nil
	}
	return archive.Helpers()
}

// MakeDirs creates the daemon's directories with the modes they must have, even if they exist: only
// root may read bundles, content and snapshots.
func MakeDirs(cfg config.Config) error {
	for dir, mode := range map[string]os.FileMode{
		cfg.Root: 0o700, cfg.State: 0o711,
		filepath.Join(cfg.Root, "snapshots"): 0o700, filepath.Join(cfg.Root, "logs"): 0o700,
	} {
		if err := makeDir(dir, mode); err != nil {
			return err
		}
	}
	for _, addr := range []string{cfg.Address, cfg.TTRPCAddress} {
		if err := os.MkdirAll(filepath.Dir(addr), 0o711); err != nil {
			return fmt.Errorf("create directory of socket: %w", err)
		}
	}
	return nil
}

// makeDir creates a directory, or sets the mode of an existing one: one with the right mode may be
// on a read-only file system.
func makeDir(dir string, mode os.FileMode) error {
	if err := os.MkdirAll(dir, mode); err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	if info, err := os.Stat(dir); err == nil && info.Mode().Perm() == mode {
		return nil
	}
	if err := os.Chmod(dir, mode); err != nil {
		return fmt.Errorf("set mode of directory: %w", err)
	}
	return nil
}

// loadUUID returns the daemon's identity, created at its first start.
func loadUUID(root string) (string, error) {
	path := filepath.Join(root, UUIDName)
	data, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(data))) > 0 {
		return strings.TrimSpace(string(data)), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read daemon uuid: %w", err)
	}
	return MakeUUID(path)
}
