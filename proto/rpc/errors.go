package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cleatproject/cleat/proto/reason"
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

// ToWire converts an error to the status with its class and its reason; nil stays nil, and a status
// of another call is unchanged. It is for ttrpc and gRPC servers. Bytes that are not UTF-8
// (errors quote requested names) become U+FFFD: a status with them cannot be
// sent, and ttrpc would close the connection instead of answering.
func ToWire(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := err.(interface{ GRPCStatus() *status.Status }); ok { // only an error that is itself a status
		return err
	}
	text := strings.ToValidUTF8(err.Error(), "\ufffd")
	for _, c := range classes() {
		if errors.Is(err, c.class) {
			return statusError(c.code, text, reason.Of(err))
		}
	}
	return statusError(codes.Unknown, text, reason.Of(err))
}

// wireError is an error with the text of the other side, its class and perhaps a reason.
type wireError struct {
	text   string
	class  error
	reason reason.Reason
}

func (e *wireError) Error() string { return e.text }
func (e *wireError) Unwrap() error { return e.class }

// As finds the reason.
func (e *wireError) As(target any) bool {
	r, ok := target.(*reason.Reason)
	if ok && e.reason != reason.None {
		*r = e.reason
		return true
	}
	return false
}

// errClosed is the class of errors that ConnectionClosed recognises.
var errClosed = fmt.Errorf("connection closed: %w", errdefs.ErrUnavailable)

// ConnectionClosed reports whether a call failed because its connection ended: it is not known whether the server
// has executed it.
func ConnectionClosed(err error) bool { return errors.Is(err, errClosed) }

// FromWire returns an error of a ttrpc or gRPC call with its errdefs class. A closed connection
// is ErrUnavailable. io.EOF and nil are unchanged. If ctx has ended, the error has
// the class of its cause, whatever the transport returned.
func FromWire(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if ctxErr := ctx.Err(); ctxErr != nil {
		return &wireError{text: err.Error(), class: ctxErr}
	}
	if errors.Is(err, ttrpc.ErrClosed) || errors.Is(err, ttrpc.ErrServerClosed) {
		return &wireError{text: err.Error(), class: errClosed}
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	for _, c := range classes() {
		if c.code == st.Code() {
			return &wireError{text: st.Message(), class: c.class, reason: reasonOf(st)}
		}
	}
	return &wireError{text: st.Message(), class: errdefs.ErrUnknown, reason: reasonOf(st)}
}
