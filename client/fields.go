package client

import (
	"reflect"
	"strings"
	"time"

	"github.com/cleatproject/cleat/client/internal/wire"
	"github.com/cleatproject/cleat/proto/events"
	"github.com/cleatproject/cleat/proto/types"
)

// Fields decodes the event for showing: its fields by name, numbers as numbers, times in RFC 3339, without empty fields
// and nested messages. An event of an unknown type has the one field "type".
func (e Event) Fields() map[string]any {
	name := e.TypeURL[strings.LastIndexByte(e.TypeURL, '/')+1:]
	m := newEvent(name[strings.LastIndexByte(name, '.')+1:]) // those of images are in a package of their own
	if m == nil {
		return map[string]any{"type": name}
	}
	_ = m.Unmarshal(e.Value) // a damaged event is shown as far as it can be read
	out := map[string]any{}
	for field, value := range reflect.ValueOf(m).Elem().Fields() {
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); !value.IsZero() {
			setField(out, name, value.Interface())
		}
	}
	return out
}

// setField adds a field, unless it is a message that is not shown.
func setField(out map[string]any, name string, value any) {
	switch v := value.(type) {
	case string, int64, map[string]string:
		out[name] = v
	case uint32:
		out[name] = uint64(v)
	case *types.Timestamp:
		out[name] = time.Unix(v.Seconds, int64(v.Nanos)).UTC().Format(time.RFC3339Nano)
	}
}

// newEvent returns an empty event of a published type, or nil.
func newEvent(name string) interface{ Unmarshal([]byte) error } {
	switch name {
	case "TaskCreate":
		return &events.TaskCreate{}
	case "TaskStart":
		return &events.TaskStart{}
	case "TaskDelete":
		return &events.TaskDelete{}
	case "TaskExit":
		return &events.TaskExit{}
	case "TaskOOM":
		return &events.TaskOOM{}
	case "TaskPaused":
		return &events.TaskPaused{}
	case "TaskResumed":
		return &events.TaskResumed{}
	case "TaskExecAdded":
		return &events.TaskExecAdded{}
	case "TaskExecStarted":
		return &events.TaskExecStarted{}
	case "TaskCheckpointed":
		return &events.TaskCheckpointed{}
	}
	return newRecordEvent(name)
}

// newRecordEvent returns an empty event of a type that reports the change of a record, or nil.
func newRecordEvent(name string) interface{ Unmarshal([]byte) error } {
	switch name {
	case "ContainerCreate":
		return &wire.ContainerCreate{}
	case "ContainerUpdate":
		return &wire.ContainerUpdate{}
	case "ContainerDelete":
		return &wire.ContainerDelete{}
	case "ContentCreate":
		return &wire.ContentCreate{}
	case "ContentDelete":
		return &wire.ContentDelete{}
	case "ImageCreate":
		return &wire.ImageCreate{}
	case "ImageUpdate":
		return &wire.ImageUpdate{}
	case "ImageDelete":
		return &wire.ImageDelete{}
	case "NamespaceCreate":
		return &wire.NamespaceCreate{}
	case "NamespaceUpdate":
		return &wire.NamespaceUpdate{}
	case "NamespaceDelete":
		return &wire.NamespaceDelete{}
	case "SandboxCreate":
		return &wire.SandboxCreate{}
	case "SandboxStart":
		return &wire.SandboxStart{}
	case "SandboxExit":
		return &wire.SandboxExit{}
	case "SnapshotPrepare":
		return &wire.SnapshotPrepare{}
	case "SnapshotCommit":
		return &wire.SnapshotCommit{}
	case "SnapshotRemove":
		return &wire.SnapshotRemove{}
	}
	return nil
}
