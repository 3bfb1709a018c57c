package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	runc "github.com/containerd/go-runc"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/reaper"
)

const (
	listenFD = 3
	// drainLimit is how long a shim that shuts down tries to send its pending events.
	drainLimit = 3 * time.Second
	// lingerLimit is how long it waits for its clients to disconnect first.
	lingerLimit = 100 * time.Millisecond
)

// serve is the verb of the long-lived process: it takes its listening socket as descriptor 3 and
// serves until Shutdown.
func serve(cfg Config, env environment) (err error) {
	limitMemory()
	log := &logger{out: env.stderr, debug: cfg.Debug}
	listener, err := inherit(listenFD)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeSocket(listener)) }()
	if err := reaper.SetSubreaper(); err != nil {
		return err
	}
	r := reaper.New()
	defer func() { err = errors.Join(err, r.Close()) }()
	m := newMonitor(r, os.Environ())
	runc.Monitor = m // go-runc has one for the whole process
	// go-runc writes the specs of exec'd processes here; files that a killed shim left are removed with the
	// bundle.
	if err := os.Setenv("XDG_RUNTIME_DIR", cfg.Bundle); err != nil {
		return fmt.Errorf("set directory for transient files: %w", err)
	}
	events := newPublisher(cfg.Namespace, env.ttrpcAddress, cfg.Address, cfg.PublishBinary, m, log)
	defer events.close()
	s := newServer(cfg.Namespace, cfg.Version, m, events, log)
	s.socket = socketFile(listener)

	server, err := ttrpc.NewServer(ttrpc.WithServerHandshaker(counter{s}))
	if err != nil {
		return fmt.Errorf("make server: %w", err)
	}
	register(server, s)
	if env.adopt {
		if err := s.adopt(cfg.Bundle, cfg.ID, env.evict); err != nil {
			log.Warnf("adopt container %s: %v", cfg.ID, err)
		}
	}
	stopSignals := s.ignoreSignals()
	defer stopSignals()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if err := server.Serve(context.Background(), listener); err != nil && !errors.Is(err, ttrpc.ErrServerClosed) {
			log.Warnf("serve: %v", err)
			s.leave()
		}
	})
	<-s.quit
	s.mu.Lock()
	s.emptyLocked()
	s.mu.Unlock()
	return s.shutDown(server)
}

// shutDown ends an empty shim.
func (s *Server) shutDown(server *ttrpc.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	if err := s.events.drain(ctx); err != nil {
		s.log.Warnf("shut down: %v", err)
	}
	s.idle.Stop()
	s.trim.Stop()
	s.orphan.Stop()
	s.awaitDisconnect(ctx)
	if err := server.Shutdown(ctx); err != nil && !errors.Is(err, net.ErrClosed) {
		s.log.Debugf("shut down: %v", err)
		if err := server.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			s.log.Debugf("shut down: %v", err)
		}
	}
	s.wg.Wait()
	return nil
}

// awaitDisconnect gives the client that requested the shutdown time to read the answer and to close
// its connection: ttrpc would cut it, and the client may mistake that for the answer.
func (s *Server) awaitDisconnect(ctx context.Context) {
	select {
	case <-s.empty:
		return
	case <-s.answered:
	case <-ctx.Done():
		return
	}
	timer := time.NewTimer(lingerLimit)
	defer timer.Stop()
	select {
	case <-s.empty:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// inherit takes over a listening unix socket.
func inherit(fd int) (*net.UnixListener, error) {
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "listener")
	l, err := net.FileListener(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take listening socket at descriptor %d: %w", fd, err), f.Close())
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("take listening socket: %w", err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("take listening socket: not a unix socket: %w", unix.EINVAL), l.Close())
	}
	u.SetUnlinkOnClose(false)
	return u, nil
}

// socketFile returns the path of a socket, or "" if its name is not an ordinary path.
func socketFile(l *net.UnixListener) string {
	addr, ok := l.Addr().(*net.UnixAddr)
	if !ok || addr.Name == "" || addr.Name[0] != '/' {
		return ""
	}
	return addr.Name
}

// removeSocket removes the socket's file.
func removeSocket(l *net.UnixListener) error {
	path := socketFile(l)
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove socket: %w", err)
	}
	return nil
}

// ignoreSignals keeps the shim alive: only its containers and Shutdown end it. The signals are
// caught and not set to be ignored, since children would inherit that.
func (s *Server) ignoreSignals() (stop func()) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case sig := <-signals:
				if sig != syscall.SIGPIPE {
					s.log.Infof("ignoring %v: stop the container instead", sig)
				}
			case <-done:
				return
			}
		}
	})
	return func() {
		signal.Stop(signals)
		close(done)
		wg.Wait()
	}
}

// counter admits peers of the shim's own user only, and counts connections.
type counter struct{ server *Server }

var _ ttrpc.Handshaker = counter{}

// Handshake implements ttrpc.Handshaker.
func (c counter) Handshake(ctx context.Context, conn net.Conn) (net.Conn, any, error) {
	conn, info, err := ttrpc.UnixSocketRequireSameUser().Handshake(ctx, conn)
	if err != nil {
		return nil, nil, err
	}
	c.server.connected()
	return &counted{Conn: conn, server: c.server}, info, nil
}

type counted struct {
	net.Conn
	server *Server
	once   sync.Once
}

// Write writes, and records the answer to Shutdown.
func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.server.wrote()
	return n, err
}

// Close closes the connection and counts it out.
func (c *counted) Close() error {
	c.once.Do(c.server.disconnected)
	return c.Conn.Close()
}

// environment holds the process's inputs other than its arguments.
type environment struct {
	stdin          io.Reader
	stdout         io.Writer
	stderr         io.Writer
	ttrpcAddress   string
	maxShimVersion string
	adopt          bool // take over the container that the bundle describes
	evict          bool // the previous shim is unreachable: end it if it is alive
}
