package client

import (
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Fields decodes the event for showing: its fields by name, numbers as numbers, times in RFC 3339.
// Of a type that is not known here only that is told, as "type".
func (e Event) Fields() map[string]any {
	name := e.TypeURL[strings.LastIndexByte(e.TypeURL, '/')+1:]
	known := fieldNames(name[strings.LastIndexByte(name, '.')+1:]) // those of images are in a package of their own
	if known == nil {
		return map[string]any{"type": name}
	}
	out := map[string]any{}
	for data := e.Value; len(data) > 0; {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			break
		}
		data = data[n:]
		size := protowire.ConsumeFieldValue(number, kind, data)
		if size < 0 {
			break
		}
		if i := int(number) - 1; i < len(known) && known[i] != "" {
			setField(out, known[i], kind, data[:size])
		}
		data = data[size:]
	}
	return out
}

// setField decodes one field by what its name says: name@ is a time, name{ a map of strings, name.
// a message that is left out.
func setField(out map[string]any, name string, kind protowire.Type, data []byte) {
	if kind == protowire.VarintType {
		v, _ := protowire.ConsumeVarint(data)
		out[name] = v
		return
	}
	if kind != protowire.BytesType {
		return
	}
	v, _ := protowire.ConsumeBytes(data)
	plain := strings.TrimRight(name, "@{.")
	switch name[len(name)-1] {
	case '@':
		seconds, nanos := pair(v)
		out[plain] = time.Unix(int64(number(seconds)), int64(number(nanos))).UTC().Format(time.RFC3339Nano)
	case '{':
		m, _ := out[plain].(map[string]string)
		if m == nil {
			m = map[string]string{}
			out[plain] = m
		}
		key, value := pair(v)
		m[text(key)] = text(value)
	case '.':
	default:
		out[plain] = string(v)
	}
}

// pair returns fields 1 and 2 of a message, as they are encoded.
func pair(data []byte) (first, second []byte) {
	for len(data) > 0 {
		num, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return first, second
		}
		data = data[n:]
		size := protowire.ConsumeFieldValue(num, kind, data)
		if size < 0 {
			return first, second
		}
		switch num {
		case 1:
			first = data[:size]
		case 2:
			second = data[:size]
		}
		data = data[size:]
	}
	return first, second
}

func number(data []byte) uint64 {
	v, n := protowire.ConsumeVarint(data)
	if n < 0 {
		return 0
	}
	return v
}

func text(data []byte) string {
	v, n := protowire.ConsumeBytes(data)
	if n < 0 {
		return ""
	}
	return string(v)
}

// fieldNames are the fields of the published events in the order of their numbers; see setField
// for what stands behind a name.
func fieldNames(event string) []string {
	switch event {
	case "TaskCreate":
		return []string{"container_id", "bundle", "rootfs.", "io.", "checkpoint", "pid"}
	case "TaskStart":
		return []string{"container_id", "pid"}
	case "TaskDelete":
		return []string{"container_id", "pid", "exit_status", "exited_at@", "id"}
	case "TaskExit":
		return []string{"container_id", "id", "pid", "exit_status", "exited_at@"}
	case "TaskOOM", "TaskPaused", "TaskResumed":
		return []string{"container_id"}
	case "TaskExecAdded":
		return []string{"container_id", "exec_id"}
	case "TaskExecStarted":
		return []string{"container_id", "exec_id", "pid"}
	case "TaskCheckpointed":
		return []string{"container_id", "checkpoint"}
	case "ContainerCreate":
		return []string{"id", "image", "runtime."}
	case "ContainerUpdate":
		return []string{"id", "image", "labels{", "snapshot_key"}
	case "ContainerDelete":
		return []string{"id"}
	case "ImageCreate", "ImageUpdate", "NamespaceCreate", "NamespaceUpdate":
		return []string{"name", "labels{"}
	case "ImageDelete", "NamespaceDelete":
		return []string{"name"}
	case "ContentCreate":
		return []string{"digest", "size", "media_type"}
	case "ContentDelete":
		return []string{"digest"}
	case "SnapshotPrepare":
		return []string{"key", "parent", "", "", "snapshotter"}
	case "SnapshotCommit":
		return []string{"key", "name", "", "", "snapshotter"}
	case "SandboxCreate", "SandboxStart":
		return []string{"sandbox_id"}
	case "SandboxExit":
		return []string{"sandbox_id", "exit_status", "exited_at@"}
	case "SnapshotRemove":
		return []string{"key", "", "", "", "snapshotter"}
	}
	return nil
}
