// Package access identifies the user of a request and decides which namespaces and privileges the
// user has. Functions take the context of a request on either transport.
package access

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

// Users has the limits of users by the uid of the process at the other end of a connection. A user that is not
// listed has none, and is equivalent to root.
type Users map[uint32]User

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
	// Policy is what it may ask for; nil for everything.
	Policy *policy.Policy
}

var _ credentials.AuthInfo = (*Peer)(nil)

// AuthType implements credentials.AuthInfo.
func (*Peer) AuthType() string { return "unix" }

// Identify returns the peer of a unix socket, as the kernel identifies it.
func (u Users) Identify(conn net.Conn, log *slog.Logger) (*Peer, error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("identify peer: %T is not a unix socket: %w", conn, errdefs.ErrInvalidArgument)
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
	user := u[cred.Uid]
	p.namespaces, p.limited, p.Policy = user.Namespaces, user.Namespaces != nil, user.Policy
	log.Debug("a client connects", "pid", p.Pid, "uid", p.UID, "gid", p.GID, "socket", conn.LocalAddr().String())
	return p, nil
}

type peerKey struct{}

// WithPeer returns the context of a connection of a peer.
func WithPeer(ctx context.Context, p *Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// PeerOf returns the peer of a request on either transport; nil within the daemon.
func PeerOf(ctx context.Context) *Peer {
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

// Allowed reports whether the request's user may work in a namespace.
func Allowed(ctx context.Context, namespace string) bool {
	p := PeerOf(ctx)
	return p == nil || !p.limited || slices.Contains(p.namespaces, namespace)
}

// Allow refuses a namespace that the request's user may not work in.
func Allow(ctx context.Context, namespace string) error {
	if Allowed(ctx, namespace) {
		return nil
	}
	return fmt.Errorf("namespace %s: not accessible to user %d: %w",
		namespace, PeerOf(ctx).UID, reason.NamespaceDenied)
}

// AllowAll refuses a request that is about all namespaces where its user is limited to some.
func AllowAll(ctx context.Context, what string) error {
	if p := PeerOf(ctx); p != nil && p.limited {
		return fmt.Errorf("%s: user %d is limited to namespaces: %w",
			what, p.UID, reason.NamespaceDenied)
	}
	return nil
}

// HasPolicy reports whether the request's user has a policy.
func HasPolicy(ctx context.Context) bool {
	p := PeerOf(ctx)
	return p != nil && p.Policy != nil
}

// ArchiveOwner returns the only user whose FIFOs may be archives of the request; nil for no condition.
func ArchiveOwner(ctx context.Context) *uint32 {
	if !HasPolicy(ctx) {
		return nil
	}
	return &PeerOf(ctx).UID
}

// Within limits a subscription to the namespaces that its user may work in; nil for no limit.
func Within(ctx context.Context) func(namespace string) bool {
	if p := PeerOf(ctx); p == nil || !p.limited {
		return nil
	}
	return func(namespace string) bool { return Allowed(ctx, namespace) }
}

// Credentials identifies the peers of a gRPC server. Nothing is sent for it.
type Credentials struct {
	Users Users
	Log   *slog.Logger
}

var _ credentials.TransportCredentials = Credentials{}

// ServerHandshake implements credentials.TransportCredentials: it identifies the peer of the socket.
func (c Credentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	p, err := c.Users.Identify(conn, c.Log)
	if err != nil {
		return nil, nil, err
	}
	return conn, p, nil
}

// ClientHandshake implements credentials.TransportCredentials. It returns ErrNotImplemented.
func (c Credentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, fmt.Errorf("identify server: %w", errdefs.ErrNotImplemented)
}

// Info implements credentials.TransportCredentials.
func (c Credentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix"}
}

// Clone implements credentials.TransportCredentials.
func (c Credentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements credentials.TransportCredentials. It does nothing.
func (c Credentials) OverrideServerName(string) error { return nil }
