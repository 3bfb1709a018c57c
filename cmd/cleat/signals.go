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

// sigRTMin and sigRTMax are the first and last real-time signals in the numbering of glibc, which reserves 32 and 33 for
// its threads. musl also reserves 34, but counts from it as well.
const sigRTMin, sigRTMax = 34, 64

// parseSignal parses a signal by number or by name, with or without SIG. Real-time signals are RTMIN, RTMAX, and offsets
// from them such as RTMIN+3, which stops systemd.
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

// realTimeSignal parses RTMIN, RTMIN+N, RTMAX and RTMAX-N.
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

// forwarded returns the signals that are forwarded: those that end a program, or whose meaning is up to it.
func forwarded() []os.Signal {
	return []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2}
}

// proxy handles the signals that this program receives. Before a process exists, a signal that ends programs cancels the
// context. After hold, signals are kept, and forward sends them to the process in order.
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

// maxKept bounds the number of kept signals.
const maxKept = 16

// newProxy starts to handle signals, and returns a context that a signal cancels. The caller must call close.
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

// take keeps a signal, or cancels the context.
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

// pass sends the kept signals to the process. Only run calls it.
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

// hold keeps later signals for the process, which exists now. It returns false if a signal has cancelled the context.
func (p *proxy) hold() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.early != 0 {
		return false
	}
	p.held = true
	return true
}

// forward calls send for the kept signals and for each later one.
func (p *proxy) forward(send func(syscall.Signal)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held, p.send = true, send
	select {
	case p.wake <- struct{}{}:
	default: // run is awake
	}
}

// cancelledBy returns the signal that cancelled the context, or 0.
func (p *proxy) cancelledBy() syscall.Signal {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.early
}

// close restores the default handling of signals, and waits for run.
func (p *proxy) close() {
	signal.Stop(p.ch)
	close(p.stop)
	p.done.Wait()
	p.cancel()
}

// escalation turns the third interrupt within askedWithin of the previous one into SIGKILL: a container's first process
// ignores signals without a handler.
type escalation struct {
	asked int
	last  time.Time
}

const askedWithin = 5 * time.Second

// next returns the signal to send for s, and whether to warn that the next one kills.
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
