package runtime

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"

	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/shimapi"
	"github.com/cleatproject/cleat/proto/task"
)

// Deadlines of calls to a shim, the short one measured as described in patience.go. Those that run the OCI runtime are
// long: a slow disk must not lead to an incomplete container.
const (
	quickCall   = 5 * time.Second
	runtimeCall = 3 * time.Minute
)

// breakLimit is how long after its calls the end of a connection may be detected.
const breakLimit = time.Second

// conn is a connection to a shim.
type conn struct {
	client  *ttrpc.Client
	service string // the task service's name in the version in use
	native  bool
	joined  bool // this task must not end it
	closed  <-chan struct{}
	pid     atomic.Int32 // the shim's process; 0 if unknown
}

// shimPid returns the pid of the shim's process, or 0 if it is not known.
func (c *conn) shimPid() int { return int(c.pid.Load()) }

// dial connects to a shim. An error that gone accepts means that the shim will never listen again.
func dial(ctx context.Context, a address) (*conn, error) {
	if a.Protocol != "" && a.Protocol != "ttrpc" {
		return nil, fmt.Errorf("shim at %s speaks %s: only ttrpc is supported: %w", a.Address, a.Protocol, errdefs.ErrNotImplemented)
	}
	closed := make(chan struct{})
	client, err := rpc.Dial(ctx, a.Address, ttrpc.WithOnClose(func() { close(closed) }))
	if err != nil {
		return nil, err
	}
	service := task.V3Service
	if a.Version == 2 {
		service = task.V2Service
	}
	return &conn{client: client, service: service, native: a.Native, joined: a.Joined, closed: closed}, nil
}

// gone reports whether a dial's error means that the shim is dead: its socket was removed, or has
// no listener. A shim that is merely stopped still has a listening socket.
func gone(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)
}

// call calls the task service with a deadline; 0 is none but the context's.
func call[Resp any, PResp rpc.Pointer[Resp]](
	ctx context.Context, c *conn, limit time.Duration, method string, req rpc.Message,
) (*Resp, error) {
	resp, err := callService[Resp, PResp](ctx, c, limit, c.service, method, req)
	if !c.native && (method == "Create" || method == "Start") {
		// Other shims pass on the output of the OCI runtime, without reasons.
		err = reason.Default(err, reason.FromRuntime(fmt.Sprint(err)))
	}
	return resp, err
}

// callNative calls cleat's own shim service with a deadline.
func callNative[Resp any, PResp rpc.Pointer[Resp]](
	ctx context.Context, c *conn, limit time.Duration, method string, req rpc.Message,
) (*Resp, error) {
	return callService[Resp, PResp](ctx, c, limit, shimapi.Service, method, req)
}

func callService[Resp any, PResp rpc.Pointer[Resp]](
	ctx context.Context, c *conn, limit time.Duration, service, method string, req rpc.Message,
) (*Resp, error) {
	switch {
	case limit == quickCall:
		var stop func()
		ctx, stop = withPatience(ctx, limit, c.shimPid)
		defer stop()
	case limit > 0:
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, errSlow)
		defer cancel()
	}
	resp, err := rpc.Call[Resp, PResp](withOwner(ctx), c.client, service, method, req)
	if err != nil && errors.Is(context.Cause(ctx), errSlow) {
		return nil, fmt.Errorf("%s: no answer from the shim in %s: %w",
			method, limit, reason.ShimSilent)
	}
	return resp, err
}

// errSlow is the cause of a call's own deadline, to distinguish it from the client's.
var errSlow = errors.New("shim did not answer in time")

// broke reports whether a call failed because the connection ended; the call may detect that first.
func (c *conn) broke(err error) bool {
	if !errdefs.IsUnavailable(err) {
		return false
	}
	timer := time.NewTimer(breakLimit)
	defer timer.Stop()
	select {
	case <-c.closed:
		return true
	case <-timer.C:
		return c.isClosed()
	}
}

// isClosed reports whether the connection has ended.
func (c *conn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}
