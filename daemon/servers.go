package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/cleatproject/cleat/daemon/api"
	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/config"
	"github.com/cleatproject/cleat/proto/rpc"
)

// stopLimit is how long active calls may take to end when the daemon stops.
const stopLimit = 500 * time.Millisecond

// servers are the two listeners with their servers.
type servers struct {
	grpc  *grpc.Server
	ttrpc *ttrpc.Server
	log   *slog.Logger
	// access holds the rights of ttrpc peers; gRPC checks them by itself.
	access access.Users

	grpcListener, ttrpcListener net.Listener
	paths                       []string
	stopping                    chan struct{} // closed when stop begins
	wg                          sync.WaitGroup
}

func newServers(parts api.Parts, access access.Users, log *slog.Logger) (*servers, error) {
	t, err := api.NewTTRPC(parts)
	if err != nil {
		return nil, fmt.Errorf("create ttrpc server: %w", err)
	}
	return &servers{stopping: make(chan struct{}), grpc: api.NewGRPC(parts, access), ttrpc: t, access: access, log: log}, nil
}

// listen binds both sockets. It replaces those of a dead daemon; the lock on the state directory
// shows that it is dead, and a socket in another place that answers belongs to another process.
func (s *servers) listen(cfg config.Config) error {
	var err error
	if s.grpcListener, err = bind(cfg.Address, cfg.Group); err != nil {
		return err
	}
	if s.ttrpcListener, err = bind(cfg.TTRPCAddress, cfg.Group); err != nil {
		return errors.Join(err, s.grpcListener.Close())
	}
	s.paths = []string{cfg.Address, cfg.TTRPCAddress}
	return s.link(cfg)
}

// link creates a link to a ttrpc socket of another name at the path used by clients that know only the address of
// the gRPC socket.
//
//nolint:contextcheck // a cancelled dial would report a used socket as stale
func (s *servers) link(cfg config.Config) error {
	name := cfg.Address + ".ttrpc"
	if cfg.TTRPCAddress == name {
		return nil
	}
	if info, err := os.Lstat(name); err == nil && info.Mode().Type() != os.ModeSymlink {
		conn, err := rpc.DialSocket(context.Background(), name)
		if err == nil {
			err = conn.Close()
		}
		if err == nil || info.Mode().Type() != os.ModeSocket {
			s.log.Warn("cannot link to the ttrpc socket: name is taken", "path", name)
			return nil
		}
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove stale link: %w", err)
	}
	if err := os.Symlink(cfg.TTRPCAddress, name); err != nil {
		return fmt.Errorf("link to the ttrpc socket: %w", err)
	}
	s.paths = append(s.paths, name)
	return nil
}

// SocketMode is the mode of the sockets: for root and the configured group.
const SocketMode = 0o660

//nolint:contextcheck // a cancelled dial would report a used socket as stale
func bind(path string, group int) (net.Listener, error) {
	if conn, err := rpc.DialSocket(context.Background(), path); err == nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: address already in use", path), conn.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	l, err := rpc.Listen(path, SocketMode)
	if err != nil {
		return nil, err
	}
	if group != 0 {
		if err := os.Chown(path, 0, group); err != nil {
			return nil, errors.Join(fmt.Errorf("set group %d of socket: %w", group, err), l.Close())
		}
	}
	return l, nil
}

// serve starts both servers. The channel gets the error of one that ends by itself.
func (s *servers) serve() <-chan error {
	failed := make(chan error, 2)
	s.wg.Go(func() {
		if err := s.grpc.Serve(s.grpcListener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			failed <- fmt.Errorf("serve gRPC: %w", err)
		}
	})
	s.wg.Go(func() {
		if err := s.serveTTRPC(); !errors.Is(err, net.ErrClosed) {
			failed <- fmt.Errorf("serve ttrpc: %w", err)
		}
	})
	return failed
}

// serveTTRPC accepts connections until the listener is closed, and returns the cause of its end. Each is served with
// its own context, which holds the peer's identity: ttrpc's own loop has one for all.
//
//nolint:contextcheck // connections last until stop ends them
func (s *servers) serveTTRPC() error {
	for {
		conn, err := s.ttrpcListener.Accept()
		if err != nil {
			if !temporary(err) {
				return err
			}
			select {
			case <-time.After(acceptPause):
			case <-s.stopping:
			}
			continue
		}
		p, err := s.access.Identify(conn, s.log)
		if err == nil {
			one := &single{conn: conn}
			err = s.ttrpc.Serve(access.WithPeer(context.Background(), p), one) // returns as soon as it has accepted it
			if one.taken && errors.Is(err, errSingle) {
				continue
			}
		}
		if err = errors.Join(err, conn.Close()); !errors.Is(err, ttrpc.ErrServerClosed) {
			s.log.Warn("cannot serve a connection", "error", err)
		}
	}
}

// acceptPause is how long a listener waits after a temporary error.
const acceptPause = 20 * time.Millisecond

// temporary reports whether a listener can continue after an error: the connection was closed before
// it was accepted, or no descriptor is available at the moment.
func temporary(err error) bool {
	return errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
}

// errSingle ends the loop that serves a single connection.
var errSingle = errors.New("no further connection")

// single is a listener that has one connection.
type single struct {
	conn  net.Conn
	taken bool
}

func (l *single) Accept() (net.Conn, error) {
	if l.taken {
		return nil, errSingle
	}
	l.taken = true
	return l.conn, nil
}

func (l *single) Close() error   { return nil }
func (l *single) Addr() net.Addr { return l.conn.LocalAddr() }

// stop ends both servers: active calls get a moment, then their contexts end. The sockets are
// removed, so that clients see at once that there is no listener.
//
//nolint:contextcheck // it runs after the context has ended, with its own limit
func (s *servers) stop() error {
	close(s.stopping)
	var err error
	for _, p := range s.paths {
		if rerr := os.Remove(p); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	done := make(chan struct{})
	s.wg.Go(func() {
		s.grpc.GracefulStop()
		close(done)
	})
	if lerr := s.ttrpcListener.Close(); lerr != nil && !errors.Is(lerr, net.ErrClosed) {
		err = errors.Join(err, lerr)
	}
	if terr := s.ttrpc.Shutdown(ctx); terr != nil && !errors.Is(terr, context.DeadlineExceeded) {
		err = errors.Join(err, terr)
	}
	select {
	case <-done:
	case <-ctx.Done():
		s.grpc.Stop()
	}
	if terr := s.ttrpc.Close(); terr != nil && !errors.Is(terr, ttrpc.ErrServerClosed) {
		err = errors.Join(err, terr)
	}
	s.wg.Wait()
	return err
}
