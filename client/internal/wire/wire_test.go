package wire

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/api/services/introspection/v1"
	"github.com/containerd/containerd/api/services/namespaces/v1"
	"github.com/containerd/containerd/api/services/streaming/v1"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/services/transfer/v1"
	"github.com/containerd/containerd/api/services/version/v1"
	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/task"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/cleatproject/cleat/proto/rpc"
)

// Every message here must be the published one on the wire: each of its fields exists there under
// the same name, and conversions in both directions are lossless.
func TestMessages_MatchPublishedOnes(t *testing.T) {
	for _, pair := range []struct {
		ours   rpc.Message
		theirs proto.Message
	}{
		{&StartRequest{}, &tasks.StartRequest{}},
		{&StartResponse{}, &tasks.StartResponse{}},
		{&DeleteTaskRequest{}, &tasks.DeleteTaskRequest{}},
		{&DeleteProcessRequest{}, &tasks.DeleteProcessRequest{}},
		{&DeleteResponse{}, &tasks.DeleteResponse{}},
		{&GetRequest{}, &tasks.GetRequest{}},
		{&GetResponse{}, &tasks.GetResponse{}},
		{&Process{}, &task.Process{}},
		{&KillRequest{}, &tasks.KillRequest{}},
		{&ExecProcessRequest{}, &tasks.ExecProcessRequest{}},
		{&ResizePtyRequest{}, &tasks.ResizePtyRequest{}},
		{&CloseIORequest{}, &tasks.CloseIORequest{}},
		{&PauseTaskRequest{}, &tasks.PauseTaskRequest{}},
		{&ResumeTaskRequest{}, &tasks.ResumeTaskRequest{}},
		{&ListPidsRequest{}, &tasks.ListPidsRequest{}},
		{&ListPidsResponse{}, &tasks.ListPidsResponse{}},
		{&UpdateTaskRequest{}, &tasks.UpdateTaskRequest{}},
		{&MetricsRequest{}, &tasks.MetricsRequest{}},
		{&MetricsResponse{}, &tasks.MetricsResponse{}},
		{&Metric{}, &apitypes.Metric{}},
		{&WaitRequest{}, &tasks.WaitRequest{}},
		{&WaitResponse{}, &tasks.WaitResponse{}},
		{&VersionResponse{}, &version.VersionResponse{}},
		{&PluginsRequest{}, &introspection.PluginsRequest{}},
		{&PluginsResponse{}, &introspection.PluginsResponse{}},
		{&Plugin{}, &introspection.Plugin{}},
		{&RPCStatus{}, &status.Status{}},
		{&Namespace{}, &namespaces.Namespace{}},
		{&ListNamespacesRequest{}, &namespaces.ListNamespacesRequest{}},
		{&ListNamespacesResponse{}, &namespaces.ListNamespacesResponse{}},
		{&CreateNamespaceRequest{}, &namespaces.CreateNamespaceRequest{}},
		{&CreateNamespaceResponse{}, &namespaces.CreateNamespaceResponse{}},
		{&DeleteNamespaceRequest{}, &namespaces.DeleteNamespaceRequest{}},
		{&GetContainerRequest{}, &containers.GetContainerRequest{}},
		{&GetContainerResponse{}, &containers.GetContainerResponse{}},
		{&ContainerRecord{}, &containers.Container{}},
		{&TransferRequest{}, &transfer.TransferRequest{}},
		{&TransferOptions{}, &transfer.TransferOptions{}},
		{&StreamInit{}, &streaming.StreamInit{}},
		{&Progress{}, &transfertypes.Progress{}},
		{&Descriptor{}, &apitypes.Descriptor{}},
		{&AuthRequest{}, &transfertypes.AuthRequest{}},
		{&AuthResponse{}, &transfertypes.AuthResponse{}},
		{&ContainerCreate{}, &events.ContainerCreate{}},
		{&ContainerUpdate{}, &events.ContainerUpdate{}},
		{&ContainerDelete{}, &events.ContainerDelete{}},
		{&ContentCreate{}, &events.ContentCreate{}},
		{&ContentDelete{}, &events.ContentDelete{}},
		{&ImageCreate{}, &events.ImageCreate{}},
		{&ImageUpdate{}, &events.ImageUpdate{}},
		{&ImageDelete{}, &events.ImageDelete{}},
		{&NamespaceCreate{}, &events.NamespaceCreate{}},
		{&NamespaceUpdate{}, &events.NamespaceUpdate{}},
		{&NamespaceDelete{}, &events.NamespaceDelete{}},
		{&SandboxCreate{}, &events.SandboxCreate{}},
		{&SandboxStart{}, &events.SandboxStart{}},
		{&SandboxExit{}, &events.SandboxExit{}},
		{&SnapshotPrepare{}, &events.SnapshotPrepare{}},
		{&SnapshotCommit{}, &events.SnapshotCommit{}},
		{&SnapshotRemove{}, &events.SnapshotRemove{}},
	} {
		t.Run(reflect.TypeOf(pair.ours).Elem().Name(), func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			for range 20 {
				fill(random, reflect.ValueOf(pair.ours).Elem())
				compare(t, pair.ours, pair.theirs)
			}
		})
	}
}

func compare(t *testing.T, ours rpc.Message, theirs proto.Message) {
	t.Helper()
	data, err := rpc.Marshal(ours)
	if err != nil {
		t.Fatal(err)
	}
	proto.Reset(theirs)
	if err := proto.Unmarshal(data, theirs); err != nil {
		t.Fatal(err)
	}
	known(t, theirs.ProtoReflect())
	typ := reflect.TypeOf(ours).Elem()
	for i := range typ.NumField() {
		name := tagName(typ.Field(i).Tag.Get("protobuf"))
		if name == "media_type" && typ.Name() == "ContentCreate" {
			continue // published as mediaType, and shown like the names of other fields
		}
		if theirs.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(name)) == nil {
			t.Errorf("the published message has no field %q", name)
		}
	}
	back, err := proto.Marshal(theirs)
	if err != nil {
		t.Fatal(err)
	}
	again := reflect.New(typ).Interface().(rpc.Message)
	if err := again.Unmarshal(back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(again, ours) {
		t.Errorf("there and back: %+v, want %+v", again, ours)
	}
}

// It checks the names of messages that are sent in an Any.
func TestNames_ArePublishedOnes(t *testing.T) {
	for name, m := range map[string]proto.Message{
		StreamInitType: &streaming.StreamInit{}, ProgressType: &transfertypes.Progress{},
		AuthRequestType: &transfertypes.AuthRequest{}, AuthResponseType: &transfertypes.AuthResponse{},
	} {
		if want := string(m.ProtoReflect().Descriptor().FullName()); name != want {
			t.Errorf("%s is called %s", want, name)
		}
	}
}

// known fails if a message has fields that are not in its definition.
func known(t *testing.T, m protoreflect.Message) {
	t.Helper()
	if len(m.GetUnknown()) > 0 {
		t.Errorf("%s has an unknown field", m.Descriptor().FullName())
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap() || fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				known(t, v.List().Get(i).Message())
			}
		default:
			known(t, v.Message())
		}
		return true
	})
}

func tagName(tag string) string {
	for part := range strings.SplitSeq(tag, ",") {
		if name, ok := strings.CutPrefix(part, "name="); ok {
			return name
		}
	}
	return ""
}

// fill sets every field to something that is not its zero value.
func fill(r *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint("s", r.Uint32()))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32:
		v.SetInt(1 + r.Int64N(4))
	case reflect.Int64:
		v.SetInt(1 + r.Int64N(1<<40))
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(1 + r.Uint64N(1<<31))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(r, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			fill(r, v.Field(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf(fmt.Sprint("k", r.Uint32())), reflect.ValueOf("v"))
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(fmt.Sprint("b", r.Uint32())))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(r, v.Index(i))
		}
	}
}
