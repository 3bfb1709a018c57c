package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// sigRTMin and sigRTMax are the ends of the real-time signals, as glibc and musl name them: 32 and 33 are
// kept for their threads (34 as well by musl, which calls it so all the same).
const sigRTMin, sigRTMax = 34, 64

// parseSignal reads a signal by number or by name, with or without SIG; real-time signals are RTMIN, RTMAX
// and what is counted from them, as RTMIN+3, by which systemd is stopped.
func parseSignal(text string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil && n > 0 && n <= 64 {
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(text)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if s := unix.SignalNum(name); s != 0 {
		return s, nil
	}
	if s, ok := realTimeSignal(strings.TrimPrefix(name, "SIG")); ok {
		return s, nil
	}
	return 0, fmt.Errorf("signal %q: want a name such as TERM or a number from 1 to 64: %w", text, errdefs.ErrInvalidArgument)
}

// realTimeSignal reads RTMIN, RTMIN+N, RTMAX and RTMAX-N.
func realTimeSignal(name string) (syscall.Signal, bool) {
	base, rest := sigRTMin, ""
	switch {
	case strings.HasPrefix(name, "RTMIN"):
		rest = name[len("RTMIN"):]
	case strings.HasPrefix(name, "RTMAX"):
		base, rest = sigRTMax, name[len("RTMAX"):]
	default:
		return 0, false
	}
	if rest == "" {
		return syscall.Signal(base), true
	}
	away, err := strconv.Atoi(rest)
	if err != nil || rest[0] == '+' != (base == sigRTMin) || base+away < sigRTMin || base+away > sigRTMax {
		return 0, false
	}
	return syscall.Signal(base + away), true
}

// signals are those that end a program, or mean what the program makes of them: they are passed on.
func forwarded() []os.Signal {
	return []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2}
}

// proxy takes the signals that this program gets. Before there is a process to pass them on to, one
// that ends programs cancels the context; from hold on they are kept, and forward gives them to the
// process, in order.
type proxy struct {
	cancel context.CancelFunc
	ch     chan os.Signal
	wake   chan struct{}
	stop   chan struct{}
	done   sync.WaitGroup

	mu    sync.Mutex
	held  bool
	kept  []syscall.Signal
	send  func(syscall.Signal)
	early syscall.Signal
}

// maxKept bounds the signals that are kept.
const maxKept = 16

// newProxy begins to take signals; the context that it returns ends by one.
func newProxy(ctx context.Context) (*proxy, context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	p := &proxy{cancel: cancel, ch: make(chan os.Signal, 16), wake: make(chan struct{}, 1), stop: make(chan struct{})}
	signal.Notify(p.ch, forwarded()...)
	p.done.Add(1)
	go p.run()
	return p, ctx
}

func (p *proxy) run() {
	defer p.done.Done()
	for {
		select {
		case <-p.stop:
			return
		case s := <-p.ch:
			p.take(s.(syscall.Signal))
		case <-p.wake:
		}
		p.pass()
	}
}

// take keeps a signal, or cancels by it.
func (p *proxy) take(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.held:
		if len(p.kept) < maxKept {
			p.kept = append(p.kept, s)
		}
	case p.early == 0 && s != syscall.SIGUSR1 && s != syscall.SIGUSR2:
		p.early = s
		p.cancel()
	}
}

// pass gives what is kept to the process. Only run calls it.
func (p *proxy) pass() {
	p.mu.Lock()
	send, signals := p.send, p.kept
	if send != nil {
		p.kept = nil
	}
	p.mu.Unlock()
	if send == nil {
		return
	}
	for _, s := range signals {
		send(s)
	}
}

// hold ends the time in which a signal cancels: there is a process now, which later signals are
// for. False says that one has cancelled already.
func (p *proxy) hold() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.early != 0 {
		return false
	}
	p.held = true
	return true
}

// forward makes send get the signals from now on, and those that are kept.
func (p *proxy) forward(send func(syscall.Signal)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held, p.send = true, send
	select {
	case p.wake <- struct{}{}:
	default: // it is awake
	}
}

// cancelledBy returns the signal that cancelled the context, or 0.
func (p *proxy) cancelledBy() syscall.Signal {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.early
}

// close gives the signals their usual meaning back.
func (p *proxy) close() {
	signal.Stop(p.ch)
	close(p.stop)
	p.done.Wait()
	p.cancel()
}

// escalation turns the third request to end within a while into SIGKILL: a container's first
// process ignores signals that it has no handler for.
type escalation struct {
	asked int
	last  time.Time
}

const askedWithin = 5 * time.Second

// next returns the signal to send for s, and whether a word about it is due.
func (e *escalation) next(s syscall.Signal, now time.Time) (send syscall.Signal, warn bool) {
	if s != syscall.SIGINT && s != syscall.SIGTERM {
		return s, false
	}
	if now.Sub(e.last) > askedWithin {
		e.asked = 0
	}
	e.asked, e.last = e.asked+1, now
	if e.asked >= 3 {
		return syscall.SIGKILL, false
	}
	return s, e.asked == 2
}
