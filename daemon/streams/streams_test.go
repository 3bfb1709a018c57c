package streams

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// pipe is a Wire whose other end is a test.
type pipe struct {
	ctx      context.Context
	up, down chan *anypb.Any // up is to the daemon; closed if the client has ended its side
}

func newPipe(ctx context.Context) *pipe {
	return &pipe{ctx, make(chan *anypb.Any, 100), make(chan *anypb.Any, 100)}
}

func (p *pipe) Send(a *anypb.Any) error {
	select {
	case p.down <- a:
		return nil
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

func (p *pipe) Recv() (*anypb.Any, error) {
	select {
	case a, ok := <-p.up:
		if !ok {
			return nil, io.EOF
		}
		return a, nil
	case <-p.ctx.Done():
		return nil, p.ctx.Err()
	}
}

// put sends a message as the client.
func (p *pipe) put(t *testing.T, m proto.Message) {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	p.up <- a
}

// served is a stream that is served until it ends.
type served struct {
	*pipe
	cancel context.CancelFunc
	ended  chan error
}

func serve(t *testing.T, m *Manager, scope, id string) *served {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &served{newPipe(ctx), cancel, make(chan error, 1)}
	go func() {
		err := m.Serve(ctx, scope, id, s.pipe)
		cancel() // as a transport does
		s.ended <- err
	}()
	select {
	case a := <-s.down:
		if !a.MessageIs(&emptypb.Empty{}) {
			t.Fatalf("acknowledged with %v", a)
		}
	case err := <-s.ended:
		s.ended <- err
	}
	return s
}

func TestTake_OnceAndWithinScope(t *testing.T) {
	m := New(Options{Most: 2})
	a := serve(t, m, "one", "a")
	if err := <-serve(t, m, "one", "a").ended; !errdefs.IsAlreadyExists(err) {
		t.Errorf("the same id: %v", err)
	}
	b := serve(t, m, "one", "b")
	if err := <-serve(t, m, "one", "c").ended; !errdefs.IsResourceExhausted(err) {
		t.Errorf("one too many: %v", err)
	}
	elsewhere := serve(t, m, "two", "c")
	if _, err := m.Take("a", "two", "three"); !errdefs.IsNotFound(err) {
		t.Errorf("from another scope: %v", err)
	}
	s, err := m.Take("a", "three", "one")
	if err != nil || s.ID() != "a" {
		t.Fatal(err)
	}
	if _, err := m.Take("a", "one"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("taken twice: %v", err)
	}
	c := serve(t, m, "one", "c") // below the limit again
	a.cancel()
	if _, err := s.Recv(); !errors.Is(err, context.Canceled) {
		t.Errorf("of a client that has left: %v", err)
	}
	select {
	case err := <-a.ended:
		t.Errorf("ended while it is in use: %v", err)
	default:
	}
	s.Close(errdefs.ErrAborted)
	s.Close(nil)
	if err := <-a.ended; !errors.Is(err, errdefs.ErrAborted) {
		t.Errorf("closed with an error: %v", err)
	}
	if err := s.Send(&emptypb.Empty{}); err == nil {
		t.Error("sending after the end succeeded")
	}
	for _, x := range []*served{b, c, elsewhere} {
		x.cancel()
		if err := <-x.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("left while it waited: %v", err)
		}
	}
	if len(m.streams) != 0 || len(m.waiting) != 0 {
		t.Errorf("left behind: %v, %v", m.streams, m.waiting)
	}
}

func TestServe_UntakenStream_Ends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{Wait: time.Minute})
		s, taken := serve(t, m, "one", "a"), serve(t, m, "one", "b")
		used, err := m.Take("b", "one")
		if err != nil {
			t.Fatal(err)
		}
		if err := <-s.ended; !errdefs.IsUnavailable(err) {
			t.Errorf("ended with %v", err)
		}
		if _, err := m.Take("a", "one"); !errdefs.IsNotFound(err) {
			t.Errorf("still available: %v", err)
		}
		used.Close(nil) // a taken stream has no time limit
		if err := <-taken.ended; err != nil {
			t.Error(err)
		}
	})
}

func TestReaderAndWriter_KeepWindow(t *testing.T) {
	data := make([]byte, 3*window+17)
	for i := range data {
		data[i] = byte(i * 7 / 3)
	}
	m := New(Options{})
	in, out := serve(t, m, "s", "in"), serve(t, m, "s", "out")
	reader, err := m.Take("in", "s")
	if err != nil {
		t.Fatal(err)
	}
	writer, err := m.Take("out", "s")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { // a client that sends as much as it may
		defer close(in.up)
		rest, may := data, 0
		for len(rest) > 0 {
			var u transfertypes.WindowUpdate
			if err := (<-in.down).UnmarshalTo(&u); err != nil {
				t.Error(err)
				return
			}
			may += int(u.GetUpdate())
			if may > window {
				t.Errorf("grant of %d bytes", may)
			}
			n := min(may, len(rest), 100_000)
			in.put(t, &transfertypes.Data{Data: rest[:n]})
			for rest, may = rest[n:], may-n; may > 0 && len(rest) > 0; rest, may = rest[n:], may-n {
				n = min(may, len(rest), 100_000)
				in.put(t, &transfertypes.Data{Data: rest[:n]})
			}
		}
	})
	var back []byte
	wg.Go(func() { // and one that takes little at a time
		for len(back) < len(data) {
			out.put(t, &transfertypes.WindowUpdate{Update: 50_000})
			for left := min(50_000, len(data)-len(back)); left > 0; {
				var d transfertypes.Data
				if err := (<-out.down).UnmarshalTo(&d); err != nil {
					t.Error(err)
					return
				}
				if left -= len(d.GetData()); left < 0 {
					t.Errorf("%d bytes too many", -left)
				}
				back = append(back, d.GetData()...)
			}
		}
	})
	n, err := io.Copy(struct{ io.Writer }{NewWriter(writer)}, struct{ io.Reader }{NewReader(reader)})
	wg.Wait()
	if err != nil || n != int64(len(data)) || !bytes.Equal(back, data) {
		t.Errorf("%d bytes, %v", n, err)
	}
	reader.Close(nil)
	writer.Close(nil)
	if err := errors.Join(<-in.ended, <-out.ended); err != nil {
		t.Error(err)
	}
}

func TestReaderAndWriter_ProtocolErrors(t *testing.T) {
	m := New(Options{})
	for what, c := range map[string]struct {
		message proto.Message
		is      func(error) bool
		write   bool
	}{
		"a window where data is due": {&transfertypes.WindowUpdate{Update: 1}, errdefs.IsInvalidArgument, false},
		"data where a window is due": {&transfertypes.Data{}, errdefs.IsInvalidArgument, true},
		"a window that is less":      {&transfertypes.WindowUpdate{Update: -1}, errdefs.IsInvalidArgument, true},
		"an end before all data":     {nil, errdefs.IsUnavailable, true},
	} {
		t.Run(what, func(t *testing.T) {
			x := serve(t, m, "s", what)
			s, err := m.Take(what, "s")
			if err != nil {
				t.Fatal(err)
			}
			if c.message == nil {
				close(x.up)
			} else {
				x.put(t, c.message)
			}
			if c.write {
				_, err = NewWriter(s).Write([]byte("x"))
			} else {
				_, err = NewReader(s).Read(make([]byte, 1))
			}
			if !c.is(err) {
				t.Errorf("%v", err)
			}
			s.Close(fmt.Errorf("over: %w", err))
			if err := <-x.ended; !c.is(err) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}
