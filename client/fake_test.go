package client_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containerd/ttrpc"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/proto/rpc"
)

// fake is a daemon whose services a test defines. It can be stopped and started again at the
// same address.
type fake struct {
	t        *testing.T
	address  string
	services map[string]*ttrpc.ServiceDesc

	mu     sync.Mutex
	server *ttrpc.Server
	conns  *tracking
	served chan struct{}
}

// tracking remembers connections, to cut them.
type tracking struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (l *tracking) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conns = append(l.conns, conn)
	}
	return conn, err
}

func (l *tracking) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		_ = c.Close()
	}
}

func newFake(t *testing.T, services map[string]*ttrpc.ServiceDesc) *fake {
	t.Helper()
	f := &fake{t: t, address: filepath.Join(t.TempDir(), "cleat.sock"), services: services}
	f.start()
	t.Cleanup(f.stop)
	return f
}

func (f *fake) start() {
	f.t.Helper()
	l, err := rpc.Listen(f.address+".ttrpc", 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		f.t.Fatal(err)
	}
	for name, desc := range f.services {
		server.RegisterService(name, desc)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	conns, served := &tracking{Listener: l}, make(chan struct{})
	f.server, f.conns, f.served = server, conns, served
	go func() {
		defer close(served)
		_ = server.Serve(context.Background(), conns)
	}()
}

// stop drops every connection, as a killed daemon does.
func (f *fake) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.server == nil {
		return
	}
	_ = f.server.Close()
	<-f.served
	f.conns.cut()
	_ = os.Remove(f.address + ".ttrpc")
	f.server = nil
}

func (f *fake) dial() *client.Client {
	f.t.Helper()
	c, err := client.Dial(f.t.Context(), f.address, client.Options{Namespace: "blue"})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			f.t.Error(err)
		}
	})
	return c
}

func methods(m map[string]ttrpc.Method) *ttrpc.ServiceDesc { return &ttrpc.ServiceDesc{Methods: m} }

func namespaceOf(ctx context.Context) string {
	ns, _ := ttrpc.GetMetadataValue(ctx, "containerd-namespace-ttrpc")
	return ns
}
