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
	"google.golang.org/grpc"

	"github.com/cleatproject/cleat/daemon/api"
	"github.com/cleatproject/cleat/daemon/service"
	"github.com/cleatproject/cleat/proto/rpc"
)

// stopLimit is how long calls under way may take to end when the daemon stops.
const stopLimit = 500 * time.Millisecond

// servers are the two listeners with their servers.
type servers struct {
	grpc  *grpc.Server
	ttrpc *ttrpc.Server
	log   *slog.Logger

	grpcListener, ttrpcListener net.Listener
	paths                       []string
	wg                          sync.WaitGroup
}

func newServers(svc *service.Service, id api.Identity, log *slog.Logger) (*servers, error) {
	t, err := api.NewTTRPC(svc, id)
	if err != nil {
		return nil, fmt.Errorf("make ttrpc server: %w", err)
	}
	return &servers{grpc: api.NewGRPC(svc, id), ttrpc: t, log: log}, nil
}

// listen binds both sockets. What a dead daemon left is replaced; the lock on the state directory
// says that it is dead, and a socket in another place that answers belongs to somebody else.
func (s *servers) listen(cfg Config) error {
	var err error
	if s.grpcListener, err = bind(cfg.Address, cfg.Group); err != nil {
		return err
	}
	if s.ttrpcListener, err = bind(cfg.TTRPCAddress, cfg.Group); err != nil {
		return errors.Join(err, s.grpcListener.Close())
	}
	s.paths = []string{cfg.Address, cfg.TTRPCAddress}
	return nil
}

func bind(path string, group int) (net.Listener, error) {
	if conn, err := rpc.DialSocket(context.Background(), path); err == nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: somebody listens there already", path), conn.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	l, err := rpc.Listen(path, 0o660)
	if err != nil {
		return nil, err
	}
	if group != 0 {
		if err := os.Chown(path, 0, group); err != nil {
			return nil, errors.Join(fmt.Errorf("give socket to group %d: %w", group, err), l.Close())
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
		err := s.ttrpc.Serve(context.Background(), s.ttrpcListener)
		if err != nil && !errors.Is(err, ttrpc.ErrServerClosed) {
			failed <- fmt.Errorf("serve ttrpc: %w", err)
		}
	})
	return failed
}

// stop ends both servers: calls under way get a moment, then their contexts end. The sockets are
// removed, so that clients see at once that nobody is there.
func (s *servers) stop() error {
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
