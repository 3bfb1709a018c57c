// Package proxy is the snapshot driver whose snapshots are managed by another process, which serves
// containerd's snapshots API on a unix socket.
//
// The records of the snapshots, with their names, labels and owners, are in the metadata database, as
// for every driver. The remote name of a snapshot is a prefix, which distinguishes daemons, and its
// number.
//
// Guarantees: calls to the other process are bounded in time. Nothing is removed there that
// does not have the prefix.
//
// Caveats: remains of a failed call in the other process are found by Cleanup. Commit trusts the other
// process to have synced the snapshot. Snapshots whose content the other process fetches itself
// (named by the label containerd.io/snapshot.ref) are not requested: layers are unpacked
// into its snapshots.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	api "github.com/containerd/containerd/api/services/snapshots/v1"
	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/snapshot"
)

// Config is the configuration of the other process; all fields are required.
type Config struct {
	// Name is the name by which clients select this driver.
	Name string
	// Address is the path of the unix socket.
	Address string
	// Snapshotter is its name in the other process, Namespace the namespace of its snapshots there.
	Snapshotter, Namespace string
	// Prefix is the prefix of the names of the snapshots there.
	Prefix string
}

// Driver is a driver that calls another process. Open returns one.
type Driver struct {
	cfg  Config
	conn *grpc.ClientConn
	api  api.SnapshotsClient
}

var _ snapshot.Driver = (*Driver)(nil)

// Open returns a driver. The other process need not run yet: calls are unavailable until it does.
func Open(cfg Config) (*Driver, error) {
	// On this machine retries cost nothing: a restarted process is reached again at once.
	again := backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond}
	conn, err := grpc.NewClient("unix://"+cfg.Address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: lookLimit}))
	if err != nil {
		return nil, fmt.Errorf("open snapshotter %s at %s: %w", cfg.Name, cfg.Address, err)
	}
	return &Driver{cfg: cfg, conn: conn, api: api.NewSnapshotsClient(conn)}, nil
}

// Bounds of calls: those that may copy a snapshot, and lookups.
const (
	workLimit = 10 * time.Minute
	lookLimit = 10 * time.Second
)

// call returns the context of a call.
func (d *Driver) call(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", d.cfg.Namespace), cancel
}

// errorf names the process that answered. err already has its class: each helper converts errors
// of the wire once, because a second conversion would lose the class.
func (d *Driver) errorf(what string, id uint64, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s snapshot %d of %s at %s: %w", what, id, d.cfg.Name, d.cfg.Address, err)
}

// committed returns the name of a committed snapshot, active that of another.
func (d *Driver) committed(id uint64) string { return d.cfg.Prefix + strconv.FormatUint(id, 10) }
func (d *Driver) active(id uint64) string    { return d.committed(id) + activeSuffix }

const activeSuffix = "-active"

// labels protect a snapshot from the garbage collector of a remote daemon.
func labels() map[string]string {
	return map[string]string{"containerd.io/gc.root": time.Now().UTC().Format(time.RFC3339)}
}

// Name implements snapshot.Driver.
func (d *Driver) Name() string { return d.cfg.Name }

// Prepare implements snapshot.Driver.
func (d *Driver) Prepare(ctx context.Context, id uint64, parents []uint64, kind snapshot.Kind) error {
	if id == 0 || kind != snapshot.KindActive && kind != snapshot.KindView {
		return fmt.Errorf("prepare snapshot %d, %s: want a number, active or view: %w", id, kind, errdefs.ErrInvalidArgument)
	}
	err := d.prepare(ctx, id, parents, kind)
	if errdefs.IsAlreadyExists(err) { // the remains of a crashed call
		if err = d.Remove(ctx, id); err == nil {
			err = d.prepare(ctx, id, parents, kind)
		}
	}
	return d.errorf("prepare", id, err)
}

func (d *Driver) prepare(ctx context.Context, id uint64, parents []uint64, kind snapshot.Kind) (err error) {
	parent := ""
	if len(parents) > 0 {
		parent = d.committed(parents[0])
	}
	ctx, cancel := d.call(ctx, workLimit)
	defer cancel()
	if kind == snapshot.KindView {
		_, err = d.api.View(ctx, &api.ViewSnapshotRequest{Snapshotter: d.cfg.Snapshotter, Key: d.active(id), Parent: parent, Labels: labels()})
	} else {
		_, err = d.api.Prepare(ctx, &api.PrepareSnapshotRequest{Snapshotter: d.cfg.Snapshotter, Key: d.active(id), Parent: parent, Labels: labels()})
	}
	return errgrpc.ToNative(err)
}

// Mounts implements snapshot.Driver. The mounts are the other process's: they are only valid
// if both see the same files.
func (d *Driver) Mounts(ctx context.Context, id uint64, _ []uint64, kind snapshot.Kind) ([]mount.Mount, error) {
	if id == 0 || kind != snapshot.KindActive && kind != snapshot.KindView {
		return nil, fmt.Errorf("mounts of snapshot %d: a %s snapshot cannot be mounted: %w", id, kind, errdefs.ErrInvalidArgument)
	}
	ctx, cancel := d.call(ctx, lookLimit)
	defer cancel()
	resp, err := d.api.Mounts(ctx, &api.MountsRequest{Snapshotter: d.cfg.Snapshotter, Key: d.active(id)})
	if err != nil {
		return nil, d.errorf("mounts of", id, errgrpc.ToNative(err))
	}
	return mounts(resp.GetMounts()), nil
}

func mounts(list []*apitypes.Mount) []mount.Mount {
	out := make([]mount.Mount, len(list))
	for i, m := range list {
		out[i] = mount.Mount{Type: m.GetType(), Source: m.GetSource(), Target: m.GetTarget(), Options: m.GetOptions()}
	}
	return out
}

// Commit implements snapshot.Driver.
func (d *Driver) Commit(ctx context.Context, id uint64) (snapshot.Usage, error) {
	err := d.commit(ctx, id)
	if errdefs.IsAlreadyExists(err) {
		// The committed one is the remains of a crashed call, unless the active one is missing: then it is this one.
		if _, uerr := d.usage(ctx, d.active(id)); uerr == nil {
			if err = d.remove(ctx, d.committed(id)); err == nil {
				err = d.commit(ctx, id)
			}
		}
	}
	// It may be committed already; then it can be measured.
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsAlreadyExists(err) {
		return snapshot.Usage{}, d.errorf("commit", id, err)
	}
	u, err := d.usage(ctx, d.committed(id))
	return u, d.errorf("commit", id, err)
}

// commit commits a snapshot in the other process.
func (d *Driver) commit(ctx context.Context, id uint64) error {
	ctx, cancel := d.call(ctx, workLimit)
	defer cancel()
	_, err := d.api.Commit(ctx, &api.CommitSnapshotRequest{
		Snapshotter: d.cfg.Snapshotter, Name: d.committed(id), Key: d.active(id), Labels: labels(),
	})
	return errgrpc.ToNative(err)
}

// Usage implements snapshot.Driver.
func (d *Driver) Usage(ctx context.Context, id uint64) (snapshot.Usage, error) {
	u, err := d.usage(ctx, d.active(id))
	if errdefs.IsNotFound(err) {
		u, err = d.usage(ctx, d.committed(id))
	}
	return u, d.errorf("usage of", id, err)
}

func (d *Driver) usage(ctx context.Context, name string) (snapshot.Usage, error) {
	ctx, cancel := d.call(ctx, workLimit)
	defer cancel()
	resp, err := d.api.Usage(ctx, &api.UsageRequest{Snapshotter: d.cfg.Snapshotter, Key: name})
	return snapshot.Usage{Size: resp.GetSize(), Inodes: resp.GetInodes()}, errgrpc.ToNative(err)
}

// Remove implements snapshot.Driver. The other process may refuse it for one with children.
func (d *Driver) Remove(ctx context.Context, id uint64) error {
	err := d.remove(ctx, d.active(id))
	if err == nil {
		err = d.remove(ctx, d.committed(id))
	}
	return d.errorf("remove", id, err)
}

// remove removes a snapshot by its remote name; a missing one is not an error.
func (d *Driver) remove(ctx context.Context, name string) error {
	ctx, cancel := d.call(ctx, workLimit)
	defer cancel()
	_, err := d.api.Remove(ctx, &api.RemoveSnapshotRequest{Snapshotter: d.cfg.Snapshotter, Key: name})
	if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// Cleanup implements snapshot.Driver. A process that does not run has nothing to clean up now.
func (d *Driver) Cleanup(ctx context.Context, live func(id uint64) bool) ([]uint64, error) {
	ids, err := d.list(ctx)
	if errdefs.IsUnavailable(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list snapshots of %s at %s: %w", d.cfg.Name, d.cfg.Address, err)
	}
	var gone []uint64
	var errs error
	for _, id := range ids { // the youngest first: they may have others as parents
		if live(id) {
			continue
		}
		if err := d.Remove(ctx, id); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		gone = append(gone, id)
	}
	return gone, errs
}

// list returns the numbers of the remote snapshots, the highest first.
func (d *Driver) list(ctx context.Context) ([]uint64, error) {
	ctx, cancel := d.call(ctx, lookLimit)
	defer cancel()
	stream, err := d.api.List(ctx, &api.ListSnapshotsRequest{Snapshotter: d.cfg.Snapshotter})
	if err != nil {
		return nil, errgrpc.ToNative(err)
	}
	ids := make(map[uint64]bool)
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return descending(ids), nil
		}
		if err != nil {
			return nil, errgrpc.ToNative(err)
		}
		for _, info := range msg.GetInfo() {
			if id, ok := d.number(info.GetName()); ok {
				ids[id] = true
			}
		}
	}
}

func descending(ids map[uint64]bool) []uint64 {
	list := slices.Sorted(maps.Keys(ids))
	slices.Reverse(list)
	return list
}

// number returns the number in a name, if the name is one of ours.
func (d *Driver) number(name string) (uint64, bool) {
	rest, ok := strings.CutPrefix(name, d.cfg.Prefix)
	if !ok {
		return 0, false
	}
	digits := strings.TrimSuffix(rest, activeSuffix)
	id, err := strconv.ParseUint(digits, 10, 64)
	return id, err == nil && strconv.FormatUint(id, 10) == digits
}

// Close implements snapshot.Driver.
func (d *Driver) Close() error { return d.conn.Close() }
