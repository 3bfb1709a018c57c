package rpc

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// classes pairs each errdefs class with its code on the wire, in the order they are tried.
func classes() []struct {
	class error
	code  codes.Code
} {
	return []struct {
		class error
		code  codes.Code
	}{
		{errdefs.ErrInvalidArgument, codes.InvalidArgument},
		{errdefs.ErrNotFound, codes.NotFound},
		{errdefs.ErrAlreadyExists, codes.AlreadyExists},
		{errdefs.ErrFailedPrecondition, codes.FailedPrecondition},
		{errdefs.ErrUnavailable, codes.Unavailable},
		{errdefs.ErrNotImplemented, codes.Unimplemented},
		{errdefs.ErrPermissionDenied, codes.PermissionDenied},
		{errdefs.ErrUnauthenticated, codes.Unauthenticated},
		{errdefs.ErrResourceExhausted, codes.ResourceExhausted},
		{errdefs.ErrOutOfRange, codes.OutOfRange},
		{errdefs.ErrAborted, codes.Aborted},
		{errdefs.ErrDataLoss, codes.DataLoss},
		{errdefs.ErrInternal, codes.Internal},
		{context.Canceled, codes.Canceled},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
	}
}

// ToWire turns an error into the status that carries its class; nil stays nil, and a status that
// came from further down stays what it is. Suits ttrpc and gRPC servers alike. Bytes that are no UTF-8
// (names that were asked for are quoted in errors) become U+FFFD: a status that holds them cannot be
// sent, and ttrpc would close the connection instead of answering.
func ToWire(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := err.(interface{ GRPCStatus() *status.Status }); ok { //nolint:errorlint // only an error that is itself a status
		return err
	}
	text := strings.ToValidUTF8(err.Error(), "\ufffd")
	for _, c := range classes() {
		if errors.Is(err, c.class) {
			return status.Error(c.code, text)
		}
	}
	return status.Error(codes.Unknown, text)
}

// wireError is an error as the other side worded it, with its class.
type wireError struct {
	text  string
	class error
}

func (e *wireError) Error() string { return e.text }
func (e *wireError) Unwrap() error { return e.class }

// FromWire gives an error from a ttrpc or gRPC call its errdefs class back. A connection that is
// gone is ErrUnavailable. io.EOF and nil stay what they are. Where ctx has ended, the error is
// its cause's class whatever the transport made of it.
func FromWire(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if ctxErr := ctx.Err(); ctxErr != nil {
		return &wireError{text: err.Error(), class: ctxErr}
	}
	if errors.Is(err, ttrpc.ErrClosed) || errors.Is(err, ttrpc.ErrServerClosed) {
		return &wireError{text: err.Error(), class: errdefs.ErrUnavailable}
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	for _, c := range classes() {
		if c.code == st.Code() {
			return &wireError{text: st.Message(), class: c.class}
		}
	}
	return &wireError{text: st.Message(), class: errdefs.ErrUnknown}
}
