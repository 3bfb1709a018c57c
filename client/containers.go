package client

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/types"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// RunRequest says what Run is to run.
type RunRequest struct {
	// ID of the container; empty: the daemon picks one.
	ID string
	// Image reference or digest; empty with RootFS set.
	Image string
	// RootFS is a directory to use instead of an image.
	RootFS string
	// Spec is the OCI runtime spec; the daemon fills in root.path, and the cgroup's path where
	// it is empty. See the package client/spec.
	Spec *specs.Spec
	// User is USER[:GROUP] by name or number, looked up in the container's own files; empty: the
	// image's, then the spec's.
	User string
	// Snapshotter and Runtime; empty: the daemon's default.
	Snapshotter, Runtime string
	// Labels of the container.
	Labels map[string]string
	// Stdio of its init.
	Stdio Stdio
	// Log makes the daemon keep stdout and stderr in a file of its own; excludes Stdio's two.
	Log bool
	// AutoRemove removes the container once its init has exited.
	AutoRemove bool
}

// Stdio names where a process's stdio goes: FIFOs by path, file:// or binary:// URIs, or empty for
// none. With Terminal set, Stderr stays empty.
type Stdio struct {
	Stdin, Stdout, Stderr string
	Terminal              bool
}

// Started is what Run answers.
type Started struct {
	ID        string
	Pid       uint32
	StartedAt time.Time
	// Cursor is a position in the event log from before the container was made; hand it to Wait.
	Cursor uint64
	// LogPath is the log file, where Log was set.
	LogPath string
}

// Container is a container and its task together.
type Container struct {
	ID        string
	Namespace string
	// Image reference it was made of; empty for a plain directory.
	Image string
	// Pid of the init; 0 where it does not run.
	Pid uint32
	// Status is created, running, paused, stopped, or unknown while its shim does not answer.
	Status     string
	ExitStatus uint32
	// Times are zero where the thing has not happened.
	CreatedAt, StartedAt, FinishedAt time.Time
	Labels                           map[string]string
	Runtime                          string
	Command                          []string
	LogPath                          string
	Stdio                            Stdio
	Snapshotter, SnapshotKey         string
}

// ListRequest narrows List; the zero value lists what runs.
type ListRequest struct {
	// All includes containers that do not run.
	All bool
	// Filters in containerd's syntax over id, image, labels, runtime and status; several mean or.
	Filters []string
}

// Run makes a container of an image and starts it, in one call. A failed or cancelled Run leaves
// nothing behind. An id that is taken is errdefs.ErrAlreadyExists, an image that is not there
// errdefs.ErrNotFound.
func (c *Client) Run(ctx context.Context, r RunRequest) (Started, error) {
	spec, err := json.Marshal(r.Spec)
	if err != nil {
		return Started{}, fmt.Errorf("encode spec: %w", err)
	}
	resp, err := call[cleatapi.RunResponse](ctx, c, cleatapi.ContainersService, "Run", &cleatapi.RunRequest{
		Id: r.ID, Image: r.Image, Rootfs: r.RootFS, Spec: spec, User: r.User,
		Snapshotter: r.Snapshotter, Runtime: r.Runtime, Labels: r.Labels,
		Terminal: r.Stdio.Terminal, Stdin: r.Stdio.Stdin, Stdout: r.Stdio.Stdout, Stderr: r.Stdio.Stderr,
		Log: r.Log, AutoRemove: r.AutoRemove,
	})
	if err != nil {
		return Started{}, about("run container", r.ID, err)
	}
	return Started{
		ID: resp.Id, Pid: resp.Pid, StartedAt: resp.StartedAt.Time(), Cursor: resp.Cursor, LogPath: resp.LogPath,
	}, nil
}

// List tells of containers; it never waits for a shim.
func (c *Client) List(ctx context.Context, r ListRequest) ([]Container, error) {
	resp, err := query[cleatapi.ListResponse](ctx, c, cleatapi.ContainersService, "List",
		&cleatapi.ListRequest{All: r.All, Filters: r.Filters})
	if err != nil {
		return nil, about("list containers", "", err)
	}
	out := make([]Container, 0, len(resp.Containers))
	for _, m := range resp.Containers {
		out = append(out, container(m))
	}
	return out, nil
}

// Remove deletes a container with what belongs to it. With force one that runs is killed first;
// without, that is errdefs.ErrFailedPrecondition. One that is not there is errdefs.ErrNotFound.
func (c *Client) Remove(ctx context.Context, id string, force bool) error {
	_, err := call[cleatapi.RemoveResponse](ctx, c, cleatapi.ContainersService, "Remove",
		&cleatapi.RemoveRequest{Id: id, Force: force})
	return about("remove container", id, err)
}

func container(m *cleatapi.Container) Container {
	return Container{
		ID: m.Id, Namespace: m.Namespace, Image: m.Image, Pid: m.Pid, Status: m.Status, ExitStatus: m.ExitStatus,
		CreatedAt: m.CreatedAt.Time(), StartedAt: m.StartedAt.Time(), FinishedAt: m.FinishedAt.Time(),
		Labels: m.Labels, Runtime: m.Runtime, Command: m.Command, LogPath: m.LogPath,
		Stdio:       Stdio{Stdin: m.Stdin, Stdout: m.Stdout, Stderr: m.Stderr, Terminal: m.Terminal},
		Snapshotter: m.Snapshotter, SnapshotKey: m.SnapshotKey,
	}
}

// jsonAny makes the wire's form of a JSON document of the named type.
func jsonAny(typeURL string, v any) (*types.Any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", typeURL, err)
	}
	return &types.Any{TypeUrl: typeURL, Value: data}, nil
}
