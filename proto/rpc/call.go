package rpc

import (
	"context"
	"fmt"

	"github.com/containerd/ttrpc"
)

// Pointer is the constraint by which the helpers create a message of a type: *T is a Message.
type Pointer[T any] interface {
	*T
	Message
}

// Unary converts a handler to a ttrpc method. An error of the handler is sent by its class.
func Unary[Req, Resp any, PReq Pointer[Req], PResp Pointer[Resp]](
	handle func(context.Context, PReq) (PResp, error),
) ttrpc.Method {
	return func(ctx context.Context, decode func(any) error) (any, error) {
		req := PReq(new(Req))
		if err := decode(wrap(req)); err != nil {
			return nil, ToWire(err)
		}
		resp, err := handle(ctx, req)
		if err != nil {
			return nil, ToWire(err)
		}
		return wrap(resp), nil
	}
}

// Caller is the part of *ttrpc.Client that Call needs.
type Caller interface {
	Call(ctx context.Context, service, method string, req, resp any) error
}

var _ Caller = (*ttrpc.Client)(nil)

// Call calls service/method and waits for its answer or the end of ctx. The error has the
// errdefs class that the server set.
func Call[Resp any, PResp Pointer[Resp]](
	ctx context.Context, c Caller, service, method string, req Message,
) (*Resp, error) {
	resp := PResp(new(Resp))
	if err := c.Call(ctx, service, method, wrap(req), wrap(resp)); err != nil {
		return nil, FromWire(ctx, err)
	}
	return (*Resp)(resp), nil
}

// ServerStream converts a handler that reads one request and sends any number of
// answers to a ttrpc stream. The stream ends when the handler returns.
func ServerStream[Req, Resp any, PReq Pointer[Req], PResp Pointer[Resp]](
	handle func(ctx context.Context, req PReq, send func(PResp) error) error,
) ttrpc.Stream {
	return ttrpc.Stream{
		StreamingServer: true,
		Handler: func(ctx context.Context, s ttrpc.StreamServer) (any, error) {
			req := PReq(new(Req))
			if err := s.RecvMsg(wrap(req)); err != nil {
				return nil, ToWire(err)
			}
			err := handle(ctx, req, func(m PResp) error { return s.SendMsg(wrap(m)) })
			return nil, ToWire(err)
		},
	}
}

// Receiver is the client's end of a server stream.
type Receiver[Resp any, PResp Pointer[Resp]] struct {
	stream ttrpc.ClientStream
}

// Receive waits for the next message; io.EOF after the last. It ends with the context that the
// stream was opened with. Not for concurrent use.
func (r *Receiver[Resp, PResp]) Receive(ctx context.Context) (PResp, error) {
	m := PResp(new(Resp))
	if err := r.stream.RecvMsg(wrap(m)); err != nil {
		return nil, FromWire(ctx, err)
	}
	return m, nil
}

// OpenServerStream calls a method that answers with a stream. Cancelling ctx ends it.
func OpenServerStream[Resp any, PResp Pointer[Resp]](
	ctx context.Context, c *ttrpc.Client, service, method string, req Message,
) (*Receiver[Resp, PResp], error) {
	s, err := c.NewStream(ctx, &ttrpc.StreamDesc{StreamingServer: true}, service, method, wrap(req))
	if err != nil {
		return nil, FromWire(ctx, err)
	}
	return &Receiver[Resp, PResp]{stream: s}, nil
}

// Duplex is the client's end of a stream of both directions. One may send while another receives.
type Duplex[Resp any, PResp Pointer[Resp]] struct {
	Receiver[Resp, PResp]
}

// Send sends a message. It blocks while the connection accepts none.
func (d *Duplex[Resp, PResp]) Send(ctx context.Context, m Message) error {
	return FromWire(ctx, d.stream.SendMsg(wrap(m)))
}

// OpenDuplex calls a method with a stream in both directions. Cancelling ctx ends it. Incoming messages
// must be received: a full stream of ttrpc breaks after a second, and blocks its connection until then.
func OpenDuplex[Resp any, PResp Pointer[Resp]](
	ctx context.Context, c *ttrpc.Client, service, method string,
) (*Duplex[Resp, PResp], error) {
	s, err := c.NewStream(ctx, &ttrpc.StreamDesc{StreamingClient: true, StreamingServer: true}, service, method, nil)
	if err != nil {
		return nil, fmt.Errorf("open stream %s/%s: %w", service, method, FromWire(ctx, err))
	}
	return &Duplex[Resp, PResp]{Receiver[Resp, PResp]{stream: s}}, nil
}
