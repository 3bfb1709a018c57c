// Package client is the client of cleatd: the command line uses it, and so can any Go program.
//
// Dial returns a Client for one namespace. Its methods are of three kinds. Those that join steps
// (Run, Wait, List, Remove, Images, Events, Shims) use cleatd's own services; those that move images
// (Pull, Push, TagImage, ImportImage, ExportImages) use containerd's transfer service, with cleatd's own
// kinds of source and destination; those on a running container (Exec, Kill, Pause, Pids, Metrics...)
// use the containerd API and work with any daemon that serves it over ttrpc.
//
// Guarantees:
//   - Every method honours its context. Cancelling a call that changes something makes
//     the daemon undo it, because each call has a connection to itself while it lasts and a
//     cancelled one closes it.
//   - Errors have the class of github.com/containerd/errdefs that the daemon set, and a Reason
//     (ReasonOf) if the cause has a name; a daemon that cannot be reached is errdefs.ErrUnavailable.
//   - A Client survives a restart of the daemon: the next call connects again, and Wait and Events
//     continue where they were.
//   - A Client is safe for concurrent use.
//
// Stdio of a container does not pass through the daemon: see the package client/stdio for FIFOs,
// and client/spec for the runtime spec of Run.
package client

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"

	"github.com/cleatproject/cleat/client/internal/wire"
	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/rpc"
)

// Defaults of Dial.
const (
	DefaultAddress   = "/run/cleat/cleat.sock"
	DefaultNamespace = "default"
)

const ttrpcSuffix = ".ttrpc"

// Options of Dial; the zero value uses the defaults.
type Options struct {
	// TTRPCAddress is the path of the daemon's ttrpc socket; empty: the address with ".ttrpc" added, where the
	// daemon has its socket or a link to it.
	TTRPCAddress string
	// Namespace that every call is made in; empty: DefaultNamespace.
	Namespace string
}

// Client makes calls to one daemon in one namespace. Dial returns one.
type Client struct {
	address   string
	namespace string
	conns     *pool
}

// Dial connects to the daemon at an address, the path of its gRPC socket (empty:
// DefaultAddress); Options has the ttrpc socket, if that is another. A daemon that
// does not run is errdefs.ErrUnavailable. The client has to be closed.
func Dial(ctx context.Context, address string, opts Options) (*Client, error) {
	if address == "" {
		address = DefaultAddress
	}
	path, err := rpc.SocketPath(address)
	if err != nil {
		return nil, err
	}
	path = strings.TrimSuffix(path, ttrpcSuffix)
	if opts.Namespace == "" {
		opts.Namespace = DefaultNamespace
	}
	socket := path + ttrpcSuffix
	if opts.TTRPCAddress != "" {
		if socket, err = rpc.SocketPath(opts.TTRPCAddress); err != nil {
			return nil, err
		}
	}
	c := &Client{address: path, namespace: opts.Namespace, conns: newPool(socket)}
	conn, err := c.conns.take(ctx)
	if err != nil {
		return nil, err
	}
	c.conns.put(conn, true)
	return c, nil
}

// Close closes every connection; running calls end with errdefs.ErrUnavailable. Closing twice
// does nothing.
func (c *Client) Close() error { return c.conns.close() }

// Namespace returns the namespace that calls are made in.
func (c *Client) Namespace() string { return c.namespace }

// StdioRoot returns the directory below which this user keeps the FIFOs of its containers: for root next to the
// daemon's socket, for others in the user's runtime directory (XDG_RUNTIME_DIR or /run/user/UID), or if there is
// none, in a directory of the user below that of temporary files.
func (c *Client) StdioRoot() string {
	uid := os.Geteuid()
	if uid == 0 {
		return filepath.Join(filepath.Dir(c.address), "fifo")
	}
	for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), "/run/user/" + strconv.Itoa(uid)} {
		if filepath.IsAbs(dir) && ownDirectory(dir, uid) {
			return filepath.Join(dir, "cleat", "fifo")
		}
	}
	return filepath.Join(os.TempDir(), "cleat-fifo-"+strconv.Itoa(uid))
}

// ownDirectory reports whether a directory exists and belongs to a user.
func ownDirectory(dir string, uid int) bool {
	info, err := os.Stat(dir)
	if err != nil || !info.IsDir() {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == uid
}

// outgoing returns ctx with the namespace for the daemon.
func (c *Client) outgoing(ctx context.Context) context.Context {
	return ttrpc.WithMetadata(ctx, ttrpc.MD{wire.NamespaceKey: {c.namespace}})
}

// call makes one call on a connection of its own. A failed call is not repeated: it is not known
// whether the daemon executed it.
func call[Resp any, P rpc.Pointer[Resp]](
	ctx context.Context, c *Client, service, method string, req rpc.Message,
) (*Resp, error) {
	conn, err := c.conns.take(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := rpc.Call[Resp, P](c.outgoing(ctx), conn.ttrpc, service, method, req)
	c.conns.put(conn, ctx.Err() == nil && !errdefs.IsUnavailable(err))
	return resp, lost(err)
}

// lost sets the reason of an error of a connection that ended.
func lost(err error) error {
	if rpc.ConnectionClosed(err) {
		return reason.With(err, reason.ConnectionLost)
	}
	return err
}

// query makes a call that changes nothing, and so may be repeated once if an idle connection
// turned out to be one to a daemon that has since restarted.
func query[Resp any, P rpc.Pointer[Resp]](
	ctx context.Context, c *Client, service, method string, req rpc.Message,
) (*Resp, error) {
	resp, err := call[Resp, P](ctx, c, service, method, req)
	if errdefs.IsUnavailable(err) && ctx.Err() == nil {
		resp, err = call[Resp, P](ctx, c, service, method, req)
	}
	return resp, err
}

// about adds call and object to an error; the object is omitted if the daemon has
// named it.
func about(verb, object string, err error) error {
	if err = lost(err); err == nil {
		return nil
	}
	if object == "" || strings.Contains(err.Error(), object) {
		return fmt.Errorf("%s: %w", verb, err)
	}
	return fmt.Errorf("%s %s: %w", verb, object, err)
}
