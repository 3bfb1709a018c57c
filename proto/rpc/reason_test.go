package rpc_test

import (
	"fmt"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/rpc"
)

func TestEveryReason_IsTransmitted(t *testing.T) {
	for _, r := range reason.All() {
		sent := fmt.Errorf("do thing: %w", r)
		wire := rpc.ToWire(sent)
		details := status.Convert(wire).Details()
		info, ok := (*errdetails.ErrorInfo)(nil), false
		if len(details) == 1 {
			info, ok = details[0].(*errdetails.ErrorInfo)
		}
		if !ok || info.GetReason() != string(r) || info.GetDomain() != "cleat" {
			t.Errorf("%s: details %v", r, details)
		}
		got := rpc.FromWire(t.Context(), wire)
		if reason.Of(got) != r || got.Error() != sent.Error() {
			t.Errorf("%s: came as %v, reason %q", r, got, reason.Of(got))
		}
		again := rpc.FromWire(t.Context(), rpc.ToWire(fmt.Errorf("through a daemon: %w", got)))
		if reason.Of(again) != r {
			t.Errorf("%s: the second hop made it %q", r, reason.Of(again))
		}
	}
}

func TestError_WithoutReason_HasNoDetails(t *testing.T) {
	wire := rpc.ToWire(fmt.Errorf("do thing"))
	if d := status.Convert(wire).Details(); len(d) > 0 {
		t.Errorf("details %v", d)
	}
	if r := reason.Of(rpc.FromWire(t.Context(), wire)); r != reason.None {
		t.Errorf("reason %q", r)
	}
}
