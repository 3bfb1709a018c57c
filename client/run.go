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

// RunRequest describes the container of Run.
type RunRequest struct {
	// ID of the container; empty: 64 hex digits are generated.
	ID string
	// Image reference or digest; empty with RootFS set.
	Image string
	// Platform of the image's files, os/arch[/variant]; empty: this host's. It must be the one whose
	// configuration was read.
	Platform string
	// RootFS is a directory to use instead of an image.
	RootFS string
	// Spec is the OCI runtime spec; the daemon sets root.path, and the cgroup's path if
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
	// Log makes the daemon store stdout and stderr in a file; excludes Stdio's two.
	Log bool
	// AutoRemove removes the container once its init has exited.
	AutoRemove bool
	// StorageSize limits the writable layer of the container, in bytes; 0: no limit. It
	// requires a file system with project quotas, else errdefs.ErrFailedPrecondition.
	StorageSize int64
}

// Started is the result of Run.
type Started struct {
	ID        string
	Pid       uint32
	StartedAt time.Time
	// Cursor is a position in the event log from before the container was created; pass it to Wait.
	Cursor uint64
	// LogPath is the log file, if Log was set.
	LogPath string
}

// withdrawLimit bounds the removal of a container that a cancelled Run may have created.
const withdrawLimit = 10 * time.Second

// Run creates a container of an image and starts it, in one call. A failed Run leaves nothing.
// Nor does a cancelled one, which may take 10 s longer: the container may have started
// just before the daemon noticed it, and is removed then. An id in use is
// errdefs.ErrAlreadyExists, a missing image errdefs.ErrNotFound.
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

// withdraw removes the container that the Run of a token created, if it was cancelled: its answer may have been
// lost.
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
