package api

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/cleatproject/cleat/daemon/policy"

	"github.com/cleatproject/cleat/proto/reason"
)

// Access has the limits of users by the uid of the process at the other end of a connection. A user that is not
// listed has none, and is equivalent to root.
type Access map[uint32]User

// User is what one user is limited to.
type User struct {
	// Namespaces are those that the user may work in; nil for all.
	Namespaces []string
	// Policy is what the user may ask for; nil for everything.
	Policy *policy.Policy
}

// Peer is the process at the other end of a connection.
type Peer struct {
	credentials.CommonAuthInfo
	Pid      int32
	UID, GID uint32
	// namespaces are those it may work in, where it is limited.
	namespaces []string
	limited    bool
	// policy is what it may ask for; nil for everything.
	policy *policy.Policy
}

var _ credentials.AuthInfo = (*Peer)(nil)

// AuthType implements credentials.AuthInfo.
func (*Peer) AuthType() string { return "unix" }

// Identify asks the kernel who is at the other end of a unix socket.
func (a Access) Identify(conn net.Conn, log *slog.Logger) (*Peer, error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("identify peer: %T is no unix socket: %w", conn, errdefs.ErrInvalidArgument)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("identify peer: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, fmt.Errorf("identify peer: %w", err)
	}
	if credErr != nil {
		return nil, fmt.Errorf("identify peer: %w", credErr)
	}
	p := &Peer{Pid: cred.Pid, UID: cred.Uid, GID: cred.Gid}
	user := a[cred.Uid]
	p.namespaces, p.limited, p.policy = user.Namespaces, user.Namespaces != nil, user.Policy
	log.Debug("a client connects", "pid", p.Pid, "uid", p.UID, "gid", p.GID, "socket", conn.LocalAddr().String())
	return p, nil
}

type peerKey struct{}

// WithPeer returns the context of a connection of a peer.
func WithPeer(ctx context.Context, p *Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// peerOf returns the peer of a request on either transport; nil within the daemon.
func peerOf(ctx context.Context) *Peer {
	if p, ok := ctx.Value(peerKey{}).(*Peer); ok {
		return p
	}
	if g, ok := peer.FromContext(ctx); ok {
		if p, ok := g.AuthInfo.(*Peer); ok {
			return p
		}
	}
	return nil
}

// may reports whether the request's user may work in a namespace.
func may(ctx context.Context, namespace string) bool {
	p := peerOf(ctx)
	return p == nil || !p.limited || slices.Contains(p.namespaces, namespace)
}

// admit refuses a namespace that the request's user may not work in.
func admit(ctx context.Context, namespace string) error {
	if may(ctx, namespace) {
		return nil
	}
	return fmt.Errorf("namespace %s: not accessible to user %d: %w",
		namespace, peerOf(ctx).UID, reason.NamespaceDenied)
}

// admitAll refuses a request that is about all namespaces where its user is limited to some.
func admitAll(ctx context.Context, what string) error {
	if p := peerOf(ctx); p != nil && p.limited {
		return fmt.Errorf("%s: user %d is limited to namespaces: %w",
			what, p.UID, reason.NamespaceDenied)
	}
	return nil
}

// peerLimited reports whether the request's user has a policy.
func peerLimited(ctx context.Context) bool {
	p := peerOf(ctx)
	return p != nil && p.policy != nil
}

// archiveOwner returns the only user whose FIFOs may be archives of the request; nil for no condition.
func archiveOwner(ctx context.Context) *uint32 {
	if !peerLimited(ctx) {
		return nil
	}
	return &peerOf(ctx).UID
}

// within limits a subscription to the namespaces that its user may work in; nil for no limit.
func within(ctx context.Context) func(namespace string) bool {
	if p := peerOf(ctx); p == nil || !p.limited {
		return nil
	}
	return func(namespace string) bool { return may(ctx, namespace) }
}

// peerCredentials identifies the peers of a gRPC server. Nothing is sent for it.
type peerCredentials struct {
	access Access
	log    *slog.Logger
}

var _ credentials.TransportCredentials = peerCredentials{}

func (c peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	p, err := c.access.Identify(conn, c.log)
	if err != nil {
		return nil, nil, err
	}
	return conn, p, nil
}

func (c peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, fmt.Errorf("identify server: %w", errdefs.ErrNotImplemented)
}

func (c peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix"}
}

func (c peerCredentials) Clone() credentials.TransportCredentials { return c }

func (c peerCredentials) OverrideServerName(string) error { return nil }
