package proto_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	v1stats "github.com/containerd/cgroups/v3/cgroup1/stats"
	v2stats "github.com/containerd/cgroups/v3/cgroup2/stats"
	apievents "github.com/containerd/containerd/api/events"
	apibootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	apisandbox "github.com/containerd/containerd/api/runtime/sandbox/v1"
	apitask2 "github.com/containerd/containerd/api/runtime/task/v2"
	apitask3 "github.com/containerd/containerd/api/runtime/task/v3"
	apittrpc "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	apitypes "github.com/containerd/containerd/api/types"
	apioptions "github.com/containerd/containerd/api/types/runc/options"
	apitasktypes "github.com/containerd/containerd/api/types/task"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cleatproject/cleat/proto/bootstrap"
	v1 "github.com/cleatproject/cleat/proto/cgroups/v1"
	v2 "github.com/cleatproject/cleat/proto/cgroups/v2"
	"github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/runcopts"
	"github.com/cleatproject/cleat/proto/sandbox"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// pair is one of our messages and the published one.
type pair struct {
	ours   rpc.Message
	theirs proto.Message
}

// pairs lists every message that has a published counterpart. The task messages are listed twice, for
// both published packages.
func pairs() []pair {
	list := []pair{
		{&types.Any{}, &anypb.Any{}},
		{&types.Timestamp{}, &timestamppb.Timestamp{}},
		{&types.Empty{}, &emptypb.Empty{}},
		{&types.Mount{}, &apitypes.Mount{}},
		{&types.ProcessInfo{}, &apitasktypes.ProcessInfo{}},
		{&types.Envelope{}, &apitypes.Envelope{}},
		{&types.ForwardRequest{}, &apittrpc.ForwardRequest{}},
		{&types.RuntimeRequest{}, &apitypes.RuntimeRequest{}},
		{&types.RuntimeVersion{}, &apitypes.RuntimeVersion{}},
		{&types.RuntimeInfo{}, &apitypes.RuntimeInfo{}},
		{&runcopts.Options{}, &apioptions.Options{}},
		{&runcopts.CheckpointOptions{}, &apioptions.CheckpointOptions{}},
		{&runcopts.ProcessDetails{}, &apioptions.ProcessDetails{}},
		{&sandbox.CreateSandboxRequest{}, &apisandbox.CreateSandboxRequest{}},
		{&sandbox.SandboxRequest{}, &apisandbox.StartSandboxRequest{}},
		{&sandbox.SandboxRequest{}, &apisandbox.PlatformRequest{}},
		{&sandbox.SandboxRequest{}, &apisandbox.WaitSandboxRequest{}},
		{&sandbox.SandboxRequest{}, &apisandbox.PingRequest{}},
		{&sandbox.SandboxRequest{}, &apisandbox.ShutdownSandboxRequest{}},
		{&sandbox.SandboxRequest{}, &apisandbox.SandboxMetricsRequest{}},
		{&sandbox.StartSandboxResponse{}, &apisandbox.StartSandboxResponse{}},
		{&sandbox.PlatformResponse{}, &apisandbox.PlatformResponse{}},
		{&sandbox.StopSandboxRequest{}, &apisandbox.StopSandboxRequest{}},
		{&sandbox.WaitSandboxResponse{}, &apisandbox.WaitSandboxResponse{}},
		{&sandbox.SandboxStatusRequest{}, &apisandbox.SandboxStatusRequest{}},
		{&sandbox.SandboxStatusResponse{}, &apisandbox.SandboxStatusResponse{}},
		{&sandbox.SandboxMetricsResponse{}, &apisandbox.SandboxMetricsResponse{}},
		{&bootstrap.BootstrapParams{}, &apibootstrap.BootstrapParams{}},
		{&bootstrap.BootstrapResult{}, &apibootstrap.BootstrapResult{}},
		{&bootstrap.Extension{}, &apibootstrap.Extension{}},
		{&v1.Metrics{}, &v1stats.Metrics{}},
		{&v2.Metrics{}, &v2stats.Metrics{}},
		{&events.TaskCreate{}, &apievents.TaskCreate{}},
		{&events.TaskStart{}, &apievents.TaskStart{}},
		{&events.TaskDelete{}, &apievents.TaskDelete{}},
		{&events.TaskIO{}, &apievents.TaskIO{}},
		{&events.TaskExit{}, &apievents.TaskExit{}},
		{&events.TaskOOM{}, &apievents.TaskOOM{}},
		{&events.TaskExecAdded{}, &apievents.TaskExecAdded{}},
		{&events.TaskExecStarted{}, &apievents.TaskExecStarted{}},
		{&events.TaskPaused{}, &apievents.TaskPaused{}},
		{&events.TaskResumed{}, &apievents.TaskResumed{}},
		{&events.TaskCheckpointed{}, &apievents.TaskCheckpointed{}},
	}
	return append(list, taskPairs()...)
}

func taskPairs() []pair {
	return []pair{
		{&task.CreateTaskRequest{}, &apitask3.CreateTaskRequest{}},
		{&task.CreateTaskRequest{}, &apitask2.CreateTaskRequest{}},
		{&task.CreateTaskResponse{}, &apitask3.CreateTaskResponse{}},
		{&task.CreateTaskResponse{}, &apitask2.CreateTaskResponse{}},
		{&task.DeleteRequest{}, &apitask3.DeleteRequest{}},
		{&task.DeleteRequest{}, &apitask2.DeleteRequest{}},
		{&task.DeleteResponse{}, &apitask3.DeleteResponse{}},
		{&task.DeleteResponse{}, &apitask2.DeleteResponse{}},
		{&task.ExecProcessRequest{}, &apitask3.ExecProcessRequest{}},
		{&task.ExecProcessRequest{}, &apitask2.ExecProcessRequest{}},
		{&task.ExecProcessResponse{}, &apitask3.ExecProcessResponse{}},
		{&task.ExecProcessResponse{}, &apitask2.ExecProcessResponse{}},
		{&task.ResizePtyRequest{}, &apitask3.ResizePtyRequest{}},
		{&task.ResizePtyRequest{}, &apitask2.ResizePtyRequest{}},
		{&task.StateRequest{}, &apitask3.StateRequest{}},
		{&task.StateRequest{}, &apitask2.StateRequest{}},
		{&task.StateResponse{}, &apitask3.StateResponse{}},
		{&task.StateResponse{}, &apitask2.StateResponse{}},
		{&task.KillRequest{}, &apitask3.KillRequest{}},
		{&task.KillRequest{}, &apitask2.KillRequest{}},
		{&task.CloseIORequest{}, &apitask3.CloseIORequest{}},
		{&task.CloseIORequest{}, &apitask2.CloseIORequest{}},
		{&task.PidsRequest{}, &apitask3.PidsRequest{}},
		{&task.PidsRequest{}, &apitask2.PidsRequest{}},
		{&task.PidsResponse{}, &apitask3.PidsResponse{}},
		{&task.PidsResponse{}, &apitask2.PidsResponse{}},
		{&task.CheckpointTaskRequest{}, &apitask3.CheckpointTaskRequest{}},
		{&task.CheckpointTaskRequest{}, &apitask2.CheckpointTaskRequest{}},
		{&task.UpdateTaskRequest{}, &apitask3.UpdateTaskRequest{}},
		{&task.UpdateTaskRequest{}, &apitask2.UpdateTaskRequest{}},
		{&task.StartRequest{}, &apitask3.StartRequest{}},
		{&task.StartRequest{}, &apitask2.StartRequest{}},
		{&task.StartResponse{}, &apitask3.StartResponse{}},
		{&task.StartResponse{}, &apitask2.StartResponse{}},
		{&task.WaitRequest{}, &apitask3.WaitRequest{}},
		{&task.WaitRequest{}, &apitask2.WaitRequest{}},
		{&task.WaitResponse{}, &apitask3.WaitResponse{}},
		{&task.WaitResponse{}, &apitask2.WaitResponse{}},
		{&task.StatsRequest{}, &apitask3.StatsRequest{}},
		{&task.StatsRequest{}, &apitask2.StatsRequest{}},
		{&task.StatsResponse{}, &apitask3.StatsResponse{}},
		{&task.StatsResponse{}, &apitask2.StatsResponse{}},
		{&task.ConnectRequest{}, &apitask3.ConnectRequest{}},
		{&task.ConnectRequest{}, &apitask2.ConnectRequest{}},
		{&task.ConnectResponse{}, &apitask3.ConnectResponse{}},
		{&task.ConnectResponse{}, &apitask2.ConnectResponse{}},
		{&task.ShutdownRequest{}, &apitask3.ShutdownRequest{}},
		{&task.ShutdownRequest{}, &apitask2.ShutdownRequest{}},
		{&task.PauseRequest{}, &apitask3.PauseRequest{}},
		{&task.PauseRequest{}, &apitask2.PauseRequest{}},
		{&task.ResumeRequest{}, &apitask3.ResumeRequest{}},
		{&task.ResumeRequest{}, &apitask2.ResumeRequest{}},
	}
}

const rounds = 50

// TestEveryMessage_IsWireEqual fills each published message at random, has ours decode and encode
// it, and compares the result; then the other way round.
func TestEveryMessage_IsWireEqual(t *testing.T) {
	for _, p := range pairs() {
		name := string(p.theirs.ProtoReflect().Descriptor().FullName())
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, uint64(len(name))))
			for range rounds {
				theirsToOurs(t, r, p)
				oursToTheirs(t, r, p)
			}
		})
	}
}

func theirsToOurs(t *testing.T, r *rand.Rand, p pair) {
	t.Helper()
	sent := p.theirs.ProtoReflect().New()
	fillTheirs(r, sent, 4)
	data, err := proto.Marshal(sent.Interface())
	if err != nil {
		t.Fatal(err)
	}
	ours := fresh(p.ours)
	if err := ours.Unmarshal(data); err != nil {
		t.Fatalf("ours cannot read %v: %v", sent, err)
	}
	back, err := rpc.Marshal(ours)
	if err != nil {
		t.Fatal(err)
	}
	got := p.theirs.ProtoReflect().New()
	if err := proto.Unmarshal(back, got.Interface()); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(sent.Interface(), got.Interface()) {
		t.Fatalf("sent  %v\nfound %v", sent.Interface(), got.Interface())
	}
}

func oursToTheirs(t *testing.T, r *rand.Rand, p pair) {
	t.Helper()
	sent := fresh(p.ours)
	fillOurs(r, reflect.ValueOf(sent).Elem(), 4)
	data, err := rpc.Marshal(sent)
	if err != nil {
		t.Fatal(err)
	}
	theirs := p.theirs.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(data, theirs); err != nil {
		t.Fatalf("theirs cannot read %+v: %v", sent, err)
	}
	if unknown := theirs.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		t.Fatalf("fields that the published message does not have: %x in %+v", unknown, sent)
	}
	back, err := proto.Marshal(theirs)
	if err != nil {
		t.Fatal(err)
	}
	got := fresh(p.ours)
	if err := got.Unmarshal(back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(sent, got) {
		t.Fatalf("sent  %+v\nfound %+v", sent, got)
	}
}

func fresh(m rpc.Message) rpc.Message {
	return reflect.New(reflect.TypeOf(m).Elem()).Interface().(rpc.Message)
}

// fillTheirs sets every field at random, to depth.
func fillTheirs(r *rand.Rand, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		switch {
		case fd.IsMap():
			for k := range r.IntN(3) {
				key := protoreflect.ValueOfString(fmt.Sprint("key", k)).MapKey()
				m.Mutable(fd).Map().Set(key, protoreflect.ValueOfString(text(r)))
			}
		case fd.IsList():
			for range r.IntN(3) {
				list := m.Mutable(fd).List()
				if fd.Kind() == protoreflect.MessageKind {
					v := list.NewElement()
					if depth > 0 {
						fillTheirs(r, v.Message(), depth-1)
					}
					list.Append(v)
				} else {
					list.Append(scalar(r, fd))
				}
			}
		case fd.Kind() == protoreflect.MessageKind:
			if depth > 0 && r.IntN(4) > 0 {
				fillTheirs(r, m.Mutable(fd).Message(), depth-1)
			}
		default:
			v := scalar(r, fd)
			// An optional field at its zero value is the only addition of proto3 presence.
			if fd.HasPresence() && v.Interface() == fd.Default().Interface() {
				continue
			}
			m.Set(fd, v)
		}
	}
}

func text(r *rand.Rand) string {
	return strings.Repeat("ä", r.IntN(3)) + fmt.Sprint(r.IntN(1000))
}

func scalar(r *rand.Rand, fd protoreflect.FieldDescriptor) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text(r))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(text(r)))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(r.IntN(2) == 1)
	case protoreflect.EnumKind:
		values := fd.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(r.IntN(values.Len())).Number())
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(r.Uint32()))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(r.Uint64()))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(r.Uint32())
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(r.Uint64())
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(r.NormFloat64())
	}
	panic("a kind the test does not know: " + fd.Kind().String())
}

// fillOurs sets every field of a generated struct at random, to depth.
func fillOurs(r *rand.Rand, v reflect.Value, depth int) {
	for i := range v.NumField() {
		f := v.Field(i)
		switch f.Kind() {
		case reflect.Pointer:
			if depth > 0 && r.IntN(4) > 0 {
				f.Set(reflect.New(f.Type().Elem()))
				fillOurs(r, f.Elem(), depth-1)
			}
		case reflect.Slice:
			fillSlice(r, f, depth)
		case reflect.Map:
			for k := range r.IntN(3) {
				if f.IsNil() {
					f.Set(reflect.MakeMap(f.Type()))
				}
				f.SetMapIndex(reflect.ValueOf(fmt.Sprint("key", k)), reflect.ValueOf(text(r)))
			}
		case reflect.String:
			f.SetString(text(r))
		case reflect.Bool:
			f.SetBool(r.IntN(2) == 1)
		case reflect.Int32:
			f.SetInt(int64(r.IntN(5))) // enums among them
		case reflect.Int64:
			f.SetInt(int64(r.Uint64()))
		case reflect.Uint32:
			f.SetUint(uint64(r.Uint32()))
		case reflect.Uint64:
			f.SetUint(r.Uint64())
		case reflect.Float64:
			f.SetFloat(r.NormFloat64())
		default:
			panic("a kind the test does not know: " + f.Kind().String())
		}
	}
}

func fillSlice(r *rand.Rand, f reflect.Value, depth int) {
	n := r.IntN(3)
	switch elem := f.Type().Elem(); elem.Kind() {
	case reflect.Uint8:
		f.SetBytes([]byte(text(r)))
	case reflect.Pointer:
		if depth == 0 {
			return
		}
		for range n {
			e := reflect.New(elem.Elem())
			fillOurs(r, e.Elem(), depth-1)
			f.Set(reflect.Append(f, e))
		}
	case reflect.String:
		for range n {
			f.Set(reflect.Append(f, reflect.ValueOf(text(r))))
		}
	default:
		for range n {
			e := reflect.New(elem).Elem()
			if elem.Kind() == reflect.Uint64 {
				e.SetUint(r.Uint64())
			} else {
				e.SetInt(int64(r.IntN(5)))
			}
			f.Set(reflect.Append(f, e))
		}
	}
}
