package shim

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/reaper"
)

// idleLimit is how long a shim without a container and without a connection lives: its daemon died
// before Create or before Shutdown.
const idleLimit = 30 * time.Second

// Server owns containers and serves requests for them. Its methods are those of the task service;
// see register.go. None of its locks is held while the OCI runtime runs.
type Server struct {
	namespace string
	version   string
	reaper    *reaper.Reaper
	monitor   *monitor // of the reaper
	events    *publisher
	log       *logger

	wg   sync.WaitGroup // watchers and removals
	quit chan struct{}  // closed when the shim has nothing left to do
	once sync.Once
	// answered gets a token when an answer was written after leave, empty when the last
	// connection was closed after leave.
	answered, empty chan struct{}

	mu         sync.Mutex
	containers map[string]*container
	pod        *pod // the sandbox that it was started for, if any
	conns      int
	idle       *time.Timer
	trim       *time.Timer
	orphan     *time.Timer // see orphan.go
	orphanWait time.Duration
	socket     string       // path of the listening socket; "" if it is not a file
	calls      atomic.Int32 // since memory was last given back
}

func newServer(namespace, version string, m *monitor, events *publisher, log *logger) *Server {
	s := &Server{
		namespace: namespace, version: version, reaper: m.Reaper, monitor: m, events: events, log: log,
		quit: make(chan struct{}), answered: make(chan struct{}, 1), empty: make(chan struct{}, 1),
		containers: make(map[string]*container),
	}
	s.idle = time.AfterFunc(idleLimit, s.idled)
	s.trim = time.AfterFunc(trimDelay, s.collect)
	s.trim.Stop()
	s.orphan = time.AfterFunc(orphanLast, s.checkOrphan)
	s.orphan.Stop()
	return s
}

// connected and disconnected count the connections.
func (s *Server) connected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns++
}

func (s *Server) disconnected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns--
	s.emptyLocked()
	s.idle.Reset(idleLimit)
}

// emptyLocked records after leave that no client is connected.
func (s *Server) emptyLocked() {
	if s.conns == 0 && s.leaving() {
		notify(s.empty)
	}
}

// wrote records an answer written after leave.
func (s *Server) wrote() {
	if s.leaving() {
		notify(s.answered)
	}
}

func (s *Server) leaving() bool {
	select {
	case <-s.quit:
		return true
	default:
		return false
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// idled ends an unused shim.
func (s *Server) idled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == 0 && len(s.containers) == 0 && s.pod == nil {
		s.log.Infof("no container and no connection for %v: leaving", idleLimit)
		s.leave()
	}
}

// leave ends the shim.
func (s *Server) leave() { s.once.Do(func() { close(s.quit) }) }

func (s *Server) container(id string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.containers[id]; ok {
		return c, nil
	}
	return nil, fmt.Errorf("container %.80s: %w", id, errdefs.ErrNotFound)
}

func (s *Server) process(id, execID string) (*process, error) {
	c, err := s.container(id)
	if err != nil {
		return nil, err
	}
	return c.process(execID)
}

func (s *Server) add(c *container) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving() {
		return fmt.Errorf("shim is shutting down: %w", errdefs.ErrUnavailable)
	}
	if _, ok := s.containers[c.id]; ok {
		return fmt.Errorf("container %s: %w", c.id, errdefs.ErrAlreadyExists)
	}
	s.containers[c.id] = c
	return nil
}

func (s *Server) remove(c *container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.containers, c.id)
	s.idle.Reset(idleLimit)
}

func (s *Server) list() []*container {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*container, 0, len(s.containers))
	for _, c := range s.containers {
		out = append(out, c)
	}
	return out
}

// publish publishes an event of this package's containers.
func (s *Server) publish(topic, name string, e rpc.Message) {
	s.events.publish("/tasks/"+topic, "containerd.events."+name, e)
}

// background returns a context for work that a request started but must not end.
func background(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}

func ownPID() uint32 { return uint32(os.Getpid()) }
