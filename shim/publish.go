package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/types"
)

const (
	eventsService = "containerd.services.events.ttrpc.v1.Events"
	// publishLimit bounds one attempt. An attempt that is abandoned too early publishes twice: a
	// busy daemon accepts the event nevertheless. A daemon that died ends the connection.
	publishLimit = 30 * time.Second
	// Between attempts the publisher waits, doubling from the first to the last of these.
	firstPublishRetry = 50 * time.Millisecond
	lastPublishRetry  = 5 * time.Second
	// publishLinger is how long the connection is kept after the last event.
	publishLinger = time.Second
)

// publisher sends events to the daemon in the order they were queued. It keeps each until a
// daemon has accepted it, for as long as the shim lives. While there is nothing to send it has
// neither goroutine nor connection.
type publisher struct {
	namespace string
	monitor   *monitor
	log       *logger

	// What to run if there is no ttrpc address.
	binary, grpcAddress string

	mu      sync.Mutex
	address string
	queue   []*types.Envelope
	active  bool
	wake    chan struct{} // something changed: an event, the address, or a request to retry now
	idle    chan struct{} // closed while nothing is queued; replaced when something is
	closed  bool
	start   func() // starts the goroutine
	stop    context.CancelFunc
	wg      sync.WaitGroup
}

func newPublisher(namespace, address, grpcAddress, binary string, m *monitor, log *logger) *publisher {
	ctx, stop := context.WithCancel(context.Background())
	idle := make(chan struct{})
	close(idle)
	p := &publisher{
		namespace: namespace, address: address, grpcAddress: grpcAddress, binary: binary,
		monitor: m, log: log,
		wake: make(chan struct{}, 1), idle: idle,
		stop: stop,
	}
	p.start = func() { p.wg.Go(func() { p.work(ctx) }) }
	return p
}

// publish queues an event. It does not block.
func (p *publisher) publish(topic, typeURL string, event rpc.Message) {
	value, err := rpc.Marshal(event)
	if err != nil {
		p.log.Warnf("event %s: %v", topic, err)
		return
	}
	e := &types.Envelope{
		Timestamp: types.FromTime(time.Now()), Namespace: p.namespace, Topic: topic,
		Event: &types.Any{TypeUrl: typeURL, Value: value},
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		p.idle = make(chan struct{})
	}
	p.queue = append(p.queue, e)
	p.wakeLocked()
}

func (p *publisher) wakeLocked() {
	if !p.active && len(p.queue) > 0 && !p.closed {
		p.active = true
		p.start()
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// retryNow makes the publisher retry at once, at another address unless it is empty.
func (p *publisher) retryNow(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if address != "" {
		p.address = address
	}
	p.wakeLocked()
}

// pending returns the number of events that no daemon has accepted yet.
func (p *publisher) pending() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue)
}

// drain waits until everything is sent, or ctx ends.
func (p *publisher) drain(ctx context.Context) error {
	p.mu.Lock()
	idle := p.idle
	p.wakeLocked()
	p.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("send %d events: %w", p.pending(), ctx.Err())
	}
}

// close discards the queue and waits for the goroutine.
func (p *publisher) close() {
	p.mu.Lock() // after this no goroutine is added
	p.closed = true
	p.mu.Unlock()
	p.stop()
	p.wg.Wait()
}

// work sends until the queue is empty and has been so for a while.
func (p *publisher) work(ctx context.Context) {
	var link link
	defer link.close()
	retry := firstPublishRetry
	for {
		e, address := p.next()
		if e == nil {
			if p.pause(ctx, publishLinger) {
				continue
			}
			if p.retire() {
				return
			}
			continue
		}
		err := p.send(ctx, &link, address, e)
		if err == nil {
			p.sent()
			retry = firstPublishRetry
			continue
		}
		link.close()
		p.log.Debugf("send event %s: %v", e.Topic, err)
		if !p.pause(ctx, retry) {
			retry = min(2*retry, lastPublishRetry)
		}
	}
}

// next returns the first event and its destination.
func (p *publisher) next() (*types.Envelope, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 || p.closed {
		return nil, ""
	}
	return p.queue[0], p.address
}

func (p *publisher) sent() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue[0] = nil
	if p.queue = p.queue[1:]; len(p.queue) == 0 {
		p.queue = nil
		close(p.idle)
	}
}

// pause waits and returns true if it was woken early.
func (p *publisher) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.wake:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// retire ends the goroutine unless there is something to do.
func (p *publisher) retire() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) > 0 && !p.closed {
		return false
	}
	p.active = false
	return true
}

func (p *publisher) send(ctx context.Context, l *link, address string, e *types.Envelope) error {
	ctx, cancel := context.WithTimeout(ctx, publishLimit)
	defer cancel()
	if address == "" {
		return p.exec(ctx, e)
	}
	client, err := l.dial(ctx, address)
	if err != nil {
		return err
	}
	_, err = rpc.Call[types.Empty](ctx, client, eventsService, "Forward", &types.ForwardRequest{Envelope: e})
	return err
}

// link is a connection to the daemon.
type link struct {
	address string
	client  *ttrpc.Client
}

func (l *link) dial(ctx context.Context, address string) (*ttrpc.Client, error) {
	if l.client != nil && l.address == address {
		return l.client, nil
	}
	l.close()
	client, err := rpc.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	l.client, l.address = client, address
	return client, nil
}

func (l *link) close() {
	if l.client != nil {
		_ = l.client.Close() // nothing can be outstanding
		l.client = nil
	}
}

// exec passes the event to the daemon's binary, for daemons that do not serve ttrpc.
func (p *publisher) exec(ctx context.Context, e *types.Envelope) (err error) {
	if p.binary == "" {
		return errors.New("neither a ttrpc address nor a publish binary is known")
	}
	data, err := rpc.Marshal(e.Event)
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	cmd := exec.Command(p.binary, "--address", p.grpcAddress, "publish", "--topic", e.Topic, "--namespace", e.Namespace) // see settle
	cmd.Stdin = r
	child, err := p.monitor.Spawn(cmd)
	if err != nil {
		return errors.Join(err, w.Close())
	}
	_, werr := w.Write(data)
	if err := errors.Join(werr, w.Close()); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	exit, err := child.Wait(ctx)
	if err != nil {
		return errors.Join(err, child.Signal(syscall.SIGKILL))
	}
	if exit.Status != 0 {
		return fmt.Errorf("%s publish: exit status %d", p.binary, exit.Status)
	}
	return nil
}
