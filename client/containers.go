package client

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/types"
)

// Stdio holds the destinations of a process's stdio: FIFOs by path, file:// or binary:// URIs, or empty for
// none. With Terminal set, Stderr stays empty.
type Stdio struct {
	Stdin, Stdout, Stderr string
	Terminal              bool
}

// Container is a container and its task.
type Container struct {
	ID        string
	Namespace string
	// Image is the reference it was created from; empty for a plain directory.
	Image string
	// Pid of the init; 0 if it does not run.
	Pid uint32
	// Status is created, running, paused, stopped, or unknown while its shim does not answer.
	Status     string
	ExitStatus uint32
	// Times are zero if the event has not happened.
	CreatedAt, StartedAt, FinishedAt time.Time
	Labels                           map[string]string
	Runtime                          string
	Command                          []string
	LogPath                          string
	Stdio                            Stdio
	Snapshotter, SnapshotKey         string
	// StorageSize is the limit of the writable layer, in bytes; 0 for none.
	StorageSize int64
	// OOMKilled reports that the kernel has killed a process in it, not necessarily its init, because of lack of
	// memory.
	OOMKilled bool
}

// ListRequest filters List; the zero value lists running containers.
type ListRequest struct {
	// All includes containers that do not run.
	All bool
	// Filters in containerd's syntax over id, image, labels, runtime and status; several mean or.
	Filters []string
}

// List returns containers; it never waits for a shim.
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

// Remove deletes a container and all that belongs to it. With force a running one is killed first;
// without, that is errdefs.ErrFailedPrecondition. A missing one is errdefs.ErrNotFound.
func (c *Client) Remove(ctx context.Context, id string, force bool) error {
	_, err := call[cleatapi.RemoveResponse](ctx, c, cleatapi.ContainersService, "Remove",
		&cleatapi.RemoveRequest{Id: id, Force: force})
	return about("remove container", id, err)
}

// ReadLog reads a part of the log of a container: up to length bytes from offset, which counts from the end if it
// is negative; 0 bytes means as much as one call returns. It returns where the data begins and how long the log is.
// A container without a log is errdefs.ErrFailedPrecondition.
func (c *Client) ReadLog(ctx context.Context, id string, offset, length int64) (data []byte, at, size int64, err error) {
	resp, err := query[cleatapi.ReadLogResponse](ctx, c, cleatapi.ContainersService, "ReadLog",
		&cleatapi.ReadLogRequest{Id: id, Offset: offset, Length: length})
	if err != nil {
		return nil, 0, 0, about("read log of", id, err)
	}
	return resp.Data, resp.Offset, resp.Size_, nil
}

// LookupUser returns the ids of USER[:GROUP], by name or number, by the passwd and group files of a running container, as
// Run does by those of an image. A number needs no entry, and without GROUP the groups that list the user apply. It returns
// errdefs.ErrNotFound with the reason ReasonUserNotFound for an unknown name, errdefs.ErrInvalidArgument for an id
// outside 0 to 2147483647, and errdefs.ErrFailedPrecondition if the container does not run.
func (c *Client) LookupUser(ctx context.Context, id, user string) (specs.User, error) {
	resp, err := query[cleatapi.LookupUserResponse](ctx, c, cleatapi.ContainersService, "LookupUser",
		&cleatapi.LookupUserRequest{Id: id, User: user})
	if err != nil {
		return specs.User{}, about("look up user", user, err)
	}
	return specs.User{UID: resp.Uid, GID: resp.Gid, AdditionalGids: resp.AdditionalGids}, nil
}

func container(m *cleatapi.Container) Container {
	return Container{
		ID: m.Id, Namespace: m.Namespace, Image: m.Image, Pid: m.Pid, Status: m.Status, ExitStatus: m.ExitStatus,
		CreatedAt: m.CreatedAt.Time(), StartedAt: m.StartedAt.Time(), FinishedAt: m.FinishedAt.Time(),
		Labels: m.Labels, Runtime: m.Runtime, Command: m.Command, LogPath: m.LogPath,
		Stdio:       Stdio{Stdin: m.Stdin, Stdout: m.Stdout, Stderr: m.Stderr, Terminal: m.Terminal},
		Snapshotter: m.Snapshotter, SnapshotKey: m.SnapshotKey, StorageSize: m.StorageSize,
		OOMKilled: m.OomKilled,
	}
}

// jsonAny returns the wire's form of a JSON document of the named type.
func jsonAny(typeURL string, v any) (*types.Any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", typeURL, err)
	}
	return &types.Any{TypeUrl: typeURL, Value: data}, nil
}
