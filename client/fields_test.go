package client_test

import (
	"reflect"
	"testing"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cleatproject/cleat/client"
)

// Every published event is shown with all its texts, numbers, times and labels.
func TestFields_PublishedEvents(t *testing.T) {
	for _, m := range []proto.Message{
		&eventsapi.TaskCreate{}, &eventsapi.TaskStart{}, &eventsapi.TaskDelete{}, &eventsapi.TaskExit{}, &eventsapi.TaskOOM{},
		&eventsapi.TaskPaused{}, &eventsapi.TaskResumed{}, &eventsapi.TaskExecAdded{}, &eventsapi.TaskExecStarted{},
		&eventsapi.TaskCheckpointed{}, &eventsapi.ContainerCreate{}, &eventsapi.ContainerUpdate{}, &eventsapi.ContainerDelete{},
		&eventsapi.ContentCreate{}, &eventsapi.ContentDelete{}, &eventsapi.ImageCreate{}, &eventsapi.ImageUpdate{},
		&eventsapi.ImageDelete{}, &eventsapi.NamespaceCreate{}, &eventsapi.NamespaceUpdate{}, &eventsapi.NamespaceDelete{},
		&eventsapi.SandboxCreate{}, &eventsapi.SandboxStart{}, &eventsapi.SandboxExit{}, &eventsapi.SnapshotPrepare{},
		&eventsapi.SnapshotCommit{}, &eventsapi.SnapshotRemove{},
	} {
		name := m.ProtoReflect().Descriptor().FullName()
		t.Run(string(name), func(t *testing.T) {
			want := fillEvent(m.ProtoReflect())
			data, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			for _, url := range []string{string(name), "types.containerd.io/" + string(name)} {
				if got := (client.Event{TypeURL: url, Value: data}).Fields(); !reflect.DeepEqual(got, want) {
					t.Errorf("%s: got %v, want %v", url, got, want)
				}
			}
		})
	}
}

// fillEvent sets every field of an event and returns what is shown of it.
func fillEvent(m protoreflect.Message) map[string]any {
	shown := map[string]any{}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		name := string(f.Name())
		if name == "mediaType" {
			name = "media_type" // the one name in another style
		}
		switch {
		case f.IsMap():
			m.Mutable(f).Map().Set(protoreflect.ValueOfString("k").MapKey(), protoreflect.ValueOfString("v"))
			shown[name] = map[string]string{"k": "v"}
		case f.IsList():
			m.Mutable(f).List().AppendMutable()
		case f.Message() != nil && f.Message().FullName() == "google.protobuf.Timestamp":
			m.Set(f, protoreflect.ValueOfMessage(timestamppb.New(time.Unix(5, 6)).ProtoReflect()))
			shown[name] = "1970-01-01T00:00:05.000000006Z"
		case f.Message() != nil:
			m.Mutable(f)
		case f.Kind() == protoreflect.Uint32Kind:
			m.Set(f, protoreflect.ValueOfUint32(uint32(f.Number())))
			shown[name] = uint64(f.Number())
		case f.Kind() == protoreflect.Int64Kind:
			m.Set(f, protoreflect.ValueOfInt64(1<<40))
			shown[name] = int64(1 << 40)
		default:
			m.Set(f, protoreflect.ValueOfString("text of "+name))
			shown[name] = "text of " + name
		}
	}
	return shown
}

func TestFields_UnknownAndDamaged(t *testing.T) {
	for _, tt := range []struct {
		event client.Event
		want  map[string]any
	}{
		{client.Event{TypeURL: "x/other.Event", Value: []byte{1}}, map[string]any{"type": "other.Event"}},
		{client.Event{TypeURL: "containerd.events.TaskOOM"}, map[string]any{}},
		{client.Event{TypeURL: "containerd.events.TaskStart", Value: []byte("\x0a\x01c\xff")}, map[string]any{"container_id": "c"}},
	} {
		if got := tt.event.Fields(); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%+v: got %v, want %v", tt.event, got, tt.want)
		}
	}
}
