package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatproject/cleat/internal/identifier"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// RunRequest says what Run is to run.
type RunRequest struct {
	// ID of the container; empty: 64 hex digits are made up.
	ID string
	// Image reference or digest; empty with RootFS set.
	Image string
	// Platform of the image's files, os/arch[/variant]; empty: this host's. It must be the one that the
	// image's configuration was read for.
	Platform string
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
	// StorageSize limits what the container may hold on disk beside its image, in bytes; 0: no limit. It
	// needs a file system that keeps project quotas: errdefs.ErrFailedPrecondition says how to get one.
	StorageSize int64
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

// withdrawLimit bounds the removal of what a cancelled Run may have made.
const withdrawLimit = 10 * time.Second

// Run makes a container of an image and starts it, in one call. A failed Run leaves nothing behind.
// Nor does a cancelled one, for which it may take 10 s longer: the container may have begun to run
// just before the daemon learned of it, and is removed then. An id that is taken is
// errdefs.ErrAlreadyExists, an image that is not there errdefs.ErrNotFound.
func (c *Client) Run(ctx context.Context, r RunRequest) (Started, error) {
	if err := ctx.Err(); err != nil {
		return Started{}, about("run container", r.ID, err)
	}
	spec, err := json.Marshal(r.Spec)
	if err != nil {
		return Started{}, fmt.Errorf("encode spec: %w", err)
	}
	if r.ID == "" {
		r.ID = identifier.Random(32)
	}
	token := identifier.Random(16)
	resp, err := call[cleatapi.RunResponse](ctx, c, cleatapi.ContainersService, "Run", &cleatapi.RunRequest{
		Id: r.ID, Image: r.Image, Platform: r.Platform, Rootfs: r.RootFS, Spec: spec, User: r.User,
		Snapshotter: r.Snapshotter, Runtime: r.Runtime, Labels: r.Labels,
		Terminal: r.Stdio.Terminal, Stdin: r.Stdio.Stdin, Stdout: r.Stdio.Stdout, Stderr: r.Stdio.Stderr,
		Log: r.Log, AutoRemove: r.AutoRemove, Token: token, StorageSize: r.StorageSize,
	})
	if err != nil {
		return Started{}, errors.Join(about("run container", r.ID, err), c.withdraw(ctx, r.ID, token))
	}
	return Started{
		ID: resp.Id, Pid: resp.Pid, StartedAt: resp.StartedAt.Time(), Cursor: resp.Cursor, LogPath: resp.LogPath,
	}, nil
}

// withdraw removes what the Run of a token made, where it was cancelled: its answer may have been
// on the way.
func (c *Client) withdraw(ctx context.Context, id, token string) error {
	if ctx.Err() == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawLimit)
	defer cancel()
	_, err := call[cleatapi.RemoveResponse](ctx, c, cleatapi.ContainersService, "Remove",
		&cleatapi.RemoveRequest{Id: id, Force: true, Token: token})
	if errdefs.IsNotFound(err) {
		return nil
	}
	return about("remove cancelled container", id, err)
}
