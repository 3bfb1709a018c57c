// Package rpc sends the messages under proto over ttrpc, without reflection and without
// generated service stubs.
//
// ttrpc marshals google.golang.org/protobuf messages only. The generated structs here are not
// such messages; wrap adapts them to one whose fast-path methods (protoiface.Methods) call
// the generated code, so that no descriptor is needed. A server is a table of Unary, a client
// a line of Call. Errors are sent as gRPC status codes and received with their errdefs
// class: see ToWire and FromWire.
package rpc

import (
	"fmt"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/runtime/protoiface"
)

// Message is the interface of the generated structs.
type Message interface {
	Reset()
	Size() int
	MarshalToSizedBuffer(buf []byte) (int, error)
	Unmarshal(data []byte) error
}

// wrapped adapts a Message to a protobuf message. The embedded interface is nil:
// protobuf's fast path calls only the methods defined here.
type wrapped struct {
	protoreflect.Message
	msg Message
}

var _ protoreflect.ProtoMessage = (*wrapped)(nil)

func wrap(m Message) *wrapped { return &wrapped{msg: m} }

// Unwrap returns the Message that a server's decoder was given; anything else is returned unchanged.
func Unwrap(v any) any {
	if w, ok := v.(*wrapped); ok {
		return w.msg
	}
	return v
}

// ProtoReflect implements protoreflect.ProtoMessage.
func (w *wrapped) ProtoReflect() protoreflect.Message { return w }

// Interface implements protoreflect.Message.
func (w *wrapped) Interface() protoreflect.ProtoMessage { return w }

// IsValid implements protoreflect.Message.
func (w *wrapped) IsValid() bool { return w.msg != nil }

// Reset is called by protobuf's Unmarshal before it decodes.
func (w *wrapped) Reset() { w.msg.Reset() }

// ProtoMethods implements protoreflect.Message.
func (w *wrapped) ProtoMethods() *protoiface.Methods { return methods() }

func methods() *protoiface.Methods {
	return &protoiface.Methods{
		Flags:            protoiface.SupportMarshalDeterministic | protoiface.SupportUnmarshalDiscardUnknown,
		Size:             size,
		Marshal:          marshal,
		Unmarshal:        unmarshal,
		CheckInitialized: initialized,
	}
}

func size(in protoiface.SizeInput) protoiface.SizeOutput {
	return protoiface.SizeOutput{Size: in.Message.(*wrapped).msg.Size()}
}

func marshal(in protoiface.MarshalInput) (protoiface.MarshalOutput, error) {
	m := in.Message.(*wrapped).msg
	n := m.Size()
	start := len(in.Buf)
	buf := in.Buf
	if cap(buf)-start < n {
		buf = make([]byte, start, start+n)
		copy(buf, in.Buf)
	}
	buf = buf[:start+n]
	written, err := m.MarshalToSizedBuffer(buf[start:])
	if err != nil {
		return protoiface.MarshalOutput{}, fmt.Errorf("marshal %T: %w", m, err)
	}
	if written != n {
		return protoiface.MarshalOutput{}, fmt.Errorf("marshal %T: wrote %d bytes of %d", m, written, n)
	}
	return protoiface.MarshalOutput{Buf: buf}, nil
}

func unmarshal(in protoiface.UnmarshalInput) (protoiface.UnmarshalOutput, error) {
	m := in.Message.(*wrapped).msg
	if err := m.Unmarshal(in.Buf); err != nil {
		return protoiface.UnmarshalOutput{}, fmt.Errorf("unmarshal %T: %w", m, err)
	}
	return protoiface.UnmarshalOutput{Flags: protoiface.UnmarshalInitialized}, nil
}

func initialized(protoiface.CheckInitializedInput) (protoiface.CheckInitializedOutput, error) {
	return protoiface.CheckInitializedOutput{}, nil
}

// Marshal returns the wire form of m.
func Marshal(m Message) ([]byte, error) {
	buf := make([]byte, m.Size())
	n, err := m.MarshalToSizedBuffer(buf)
	if err != nil {
		return nil, fmt.Errorf("marshal %T: %w", m, err)
	}
	return buf[len(buf)-n:], nil
}
