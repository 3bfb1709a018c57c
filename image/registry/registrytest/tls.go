package registrytest

import (
	"bufio"
	"net"
	"sync"
)

// peeking passes on connections that do not begin with TLS; onTLS gets the others and ends them.
type peeking struct {
	net.Listener
	onTLS func(net.Conn)
	conns chan net.Conn
	done  chan struct{}
	wg    sync.WaitGroup

	mu   sync.Mutex
	held map[net.Conn]bool
}

func (p *peeking) start() {
	p.wg.Go(func() {
		for {
			c, err := p.Listener.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.sort(c) })
		}
	})
}

// sort reads the first byte of a connection.
func (p *peeking) sort(c net.Conn) {
	p.hold(c, true)
	defer p.hold(c, false)
	b := bufio.NewReader(c)
	first, err := b.Peek(1)
	if err != nil {
		_ = c.Close()
		return
	}
	if first[0] == 0x16 { // a TLS handshake
		p.onTLS(c)
		_ = c.Close()
		return
	}
	select {
	case p.conns <- &buffered{c, b}:
	case <-p.done:
		_ = c.Close()
	}
}

// hold records a connection that Close has to end.
func (p *peeking) hold(c net.Conn, held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if held {
		p.held[c] = true
	} else {
		delete(p.held, c)
	}
}

// Accept implements net.Listener.
func (p *peeking) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *peeking) Close() error {
	err := p.Listener.Close()
	close(p.done)
	p.mu.Lock()
	for c := range p.held {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
	return err
}

// buffered is a connection of which some bytes were already read.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

// Read implements io.Reader.
func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }
