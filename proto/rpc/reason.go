package rpc

import (
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatproject/cleat/proto/reason"
)

// A reason is sent as the detail google.rpc.ErrorInfo of a status, with errorDomain as its domain. The
// message is encoded here: its package would cost memory in each shim.
const (
	errorInfoURL = "type.googleapis.com/google.rpc.ErrorInfo"
	errorDomain  = "cleat"

	errorInfoReason protowire.Number = 1
	errorInfoDomain protowire.Number = 2
)

// statusError returns the error of a status with a reason, or with none.
func statusError(code codes.Code, text string, r reason.Reason) error {
	if r == reason.None {
		return status.Error(code, text)
	}
	var info []byte
	info = protowire.AppendTag(info, errorInfoReason, protowire.BytesType)
	info = protowire.AppendString(info, string(r))
	info = protowire.AppendTag(info, errorInfoDomain, protowire.BytesType)
	info = protowire.AppendString(info, errorDomain)
	return status.FromProto(&spb.Status{
		Code: int32(code), Message: text, Details: []*anypb.Any{{TypeUrl: errorInfoURL, Value: info}},
	}).Err()
}

// reasonOf returns the reason in a status, or None. One that this version does not know is None, too.
func reasonOf(st *status.Status) reason.Reason {
	for _, d := range st.Proto().GetDetails() {
		if d.GetTypeUrl() != errorInfoURL {
			continue
		}
		fields := stringFields(d.GetValue())
		if fields[errorInfoDomain] == errorDomain {
			return reason.Known(fields[errorInfoReason])
		}
	}
	return reason.None
}

// stringFields returns the fields of a message that are strings, up to where it is malformed.
func stringFields(b []byte) map[protowire.Number]string {
	out := make(map[protowire.Number]string)
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return out
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, typ, b); n < 0 {
			return out
		}
		if typ == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(b[:n])
			out[number] = string(value)
		}
		b = b[n:]
	}
	return out
}
