package metadata

import (
	"maps"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/metadata/internal/records"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/snapshot"
)

// Records are written as messages of package records, whose source describes the format. Each noun has one function
// that fills its message, and one that reads it.

// marshaler is a generated message.
type marshaler interface {
	Size() int
	MarshalToSizedBuffer([]byte) (int, error)
}

// marshal encodes a message and leaves room for the seal. Marshalling to a buffer of the message's own size
// does not fail: no field is of a type with its own marshalling method.
func marshal(m marshaler) []byte {
	size := m.Size()
	b := make([]byte, size, size+sealSize)
	n, _ := m.MarshalToSizedBuffer(b)
	return b[size-n:]
}

// unmarshaled sets the error class of a message that cannot be decoded.
func unmarshaled(err error) error {
	if err == nil {
		return nil
	}
	return damagedRecord(err)
}

func encodeNamespace(v *Namespace) []byte {
	return marshal(&records.Namespace{Name: v.Name, Labels: writtenLabels(v.Labels), XXX_unrecognized: v.unknown})
}

func decodeNamespace(raw []byte, v *Namespace) error {
	var m records.Namespace
	err := unmarshaled(m.Unmarshal(raw))
	*v = Namespace{Name: m.Name, Labels: m.Labels, unknown: m.XXX_unrecognized}
	return err
}

func encodeContainer(v *Container) []byte {
	return marshal(&records.Container{
		Id: v.ID, Labels: writtenLabels(v.Labels), Image: v.Image, Runtime: v.Runtime.Name, RuntimeOptions: fromAny(v.Runtime.Options),
		Spec: fromAny(v.Spec), Snapshotter: v.Snapshotter, SnapshotKey: v.SnapshotKey, CreatedAt: fromTime(v.CreatedAt),
		UpdatedAt: fromTime(v.UpdatedAt), Extensions: fromAnys(v.Extensions), SandboxId: v.SandboxID, XXX_unrecognized: v.unknown,
	})
}

func decodeContainer(raw []byte, v *Container) error {
	var m records.Container
	err := unmarshaled(m.Unmarshal(raw))
	*v = Container{
		ID: m.Id, Labels: m.Labels, Image: m.Image, Runtime: Runtime{m.Runtime, toAny(m.RuntimeOptions)}, Spec: toAny(m.Spec),
		Snapshotter: m.Snapshotter, SnapshotKey: m.SnapshotKey, CreatedAt: toTime(m.CreatedAt), UpdatedAt: toTime(m.UpdatedAt),
		Extensions: toAnys(m.Extensions), SandboxID: m.SandboxId, unknown: m.XXX_unrecognized,
	}
	return err
}

func encodeSandbox(v *Sandbox) []byte {
	return marshal(&records.Sandbox{
		Id: v.ID, Runtime: v.Runtime.Name, RuntimeOptions: fromAny(v.Runtime.Options), Spec: fromAny(v.Spec),
		Labels: writtenLabels(v.Labels), CreatedAt: fromTime(v.CreatedAt), UpdatedAt: fromTime(v.UpdatedAt),
		Extensions: fromAnys(v.Extensions), Sandboxer: v.Sandboxer, XXX_unrecognized: v.unknown,
	})
}

func decodeSandbox(raw []byte, v *Sandbox) error {
	var m records.Sandbox
	err := unmarshaled(m.Unmarshal(raw))
	*v = Sandbox{
		ID: m.Id, Runtime: Runtime{m.Runtime, toAny(m.RuntimeOptions)}, Spec: toAny(m.Spec), Labels: m.Labels,
		CreatedAt: toTime(m.CreatedAt), UpdatedAt: toTime(m.UpdatedAt), Extensions: toAnys(m.Extensions), Sandboxer: m.Sandboxer,
		unknown: m.XXX_unrecognized,
	}
	return err
}

func encodeImage(v *Image) []byte {
	return marshal(&records.Image{
		Name: v.Name, Labels: writtenLabels(v.Labels), Target: fromDescriptor(&v.Target), CreatedAt: fromTime(v.CreatedAt),
		UpdatedAt: fromTime(v.UpdatedAt), XXX_unrecognized: v.unknown,
	})
}

func decodeImage(raw []byte, v *Image) error {
	var m records.Image
	err := unmarshaled(m.Unmarshal(raw))
	*v = Image{
		Name: m.Name, Labels: m.Labels, Target: toDescriptor(m.Target), CreatedAt: toTime(m.CreatedAt),
		UpdatedAt: toTime(m.UpdatedAt), unknown: m.XXX_unrecognized,
	}
	return err
}

// fromDescriptor omits embedded data: content belongs in the content store.
func fromDescriptor(d *ocispec.Descriptor) *records.Descriptor {
	m := &records.Descriptor{
		MediaType: d.MediaType, Digest: d.Digest.String(), Size_: d.Size, Annotations: d.Annotations, Urls: d.URLs,
		ArtifactType: d.ArtifactType,
	}
	if p := d.Platform; p != nil {
		m.Platform = &records.Platform{
			Os: p.OS, Architecture: p.Architecture, Variant: p.Variant, OsVersion: p.OSVersion, OsFeatures: p.OSFeatures,
		}
	}
	return m
}

func toDescriptor(m *records.Descriptor) ocispec.Descriptor {
	if m == nil {
		return ocispec.Descriptor{}
	}
	d := ocispec.Descriptor{
		MediaType: m.MediaType, Digest: digest.Digest(m.Digest), Size: m.Size_, Annotations: m.Annotations, URLs: m.Urls,
		ArtifactType: m.ArtifactType,
	}
	if p := m.Platform; p != nil {
		d.Platform = &ocispec.Platform{
			OS: p.Os, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OsVersion, OSFeatures: p.OsFeatures,
		}
	}
	return d
}

func encodeLease(v *Lease) []byte {
	return marshal(&records.Lease{
		Id: v.ID, Labels: writtenLabels(v.Labels), CreatedAt: fromTime(v.CreatedAt), XXX_unrecognized: v.unknown,
	})
}

func decodeLease(raw []byte, v *Lease) error {
	var m records.Lease
	err := unmarshaled(m.Unmarshal(raw))
	*v = Lease{ID: m.Id, Labels: m.Labels, CreatedAt: toTime(m.CreatedAt), unknown: m.XXX_unrecognized}
	return err
}

func encodeSnapshot(v *Snapshot) []byte {
	return marshal(&records.Snapshot{
		Key: v.Key, Parent: v.Parent, Kind: uint32(v.Kind), Id: v.ID, Labels: writtenLabels(v.Labels),
		CreatedAt: fromTime(v.CreatedAt), UpdatedAt: fromTime(v.UpdatedAt), Size_: v.Size, Inodes: v.Inodes,
		XXX_unrecognized: v.unknown,
	})
}

func decodeSnapshot(raw []byte, v *Snapshot) error {
	var m records.Snapshot
	err := unmarshaled(m.Unmarshal(raw))
	*v = Snapshot{
		Key: m.Key, Parent: m.Parent, Kind: snapshot.Kind(m.Kind), ID: m.Id, Labels: m.Labels, CreatedAt: toTime(m.CreatedAt),
		UpdatedAt: toTime(m.UpdatedAt), Size: m.Size_, Inodes: m.Inodes, unknown: m.XXX_unrecognized,
	}
	return err
}

func encodeBlob(v *Blob) []byte {
	return marshal(&records.Blob{
		Digest: v.Digest.String(), Size_: v.Size, Labels: writtenLabels(v.Labels), CreatedAt: fromTime(v.CreatedAt),
		UpdatedAt: fromTime(v.UpdatedAt), XXX_unrecognized: v.unknown,
	})
}

func decodeBlob(raw []byte, v *Blob) error {
	var m records.Blob
	err := unmarshaled(m.Unmarshal(raw))
	*v = Blob{
		Digest: digest.Digest(m.Digest), Size: m.Size_, Labels: m.Labels, CreatedAt: toTime(m.CreatedAt),
		UpdatedAt: toTime(m.UpdatedAt), unknown: m.XXX_unrecognized,
	}
	return err
}

// encodeEvent encodes an event of the outbox; its key is its number.
func encodeEvent(v *events.Event) []byte {
	return marshal(&records.Event{
		Timestamp: fromTime(v.Timestamp), Namespace: v.Namespace, Topic: v.Topic, TypeUrl: v.TypeURL, Value: v.Value,
	})
}

// decodeEvent keeps the event's number.
func decodeEvent(raw []byte, v *events.Event) error {
	var m records.Event
	err := unmarshaled(m.Unmarshal(raw))
	v.Timestamp, v.Namespace, v.Topic, v.TypeURL, v.Value = toTime(m.Timestamp), m.Namespace, m.Topic, m.TypeUrl, m.Value
	return err
}

// fromTime returns nanoseconds since 1970, and nothing for the zero time.
func fromTime(t time.Time) []uint64 {
	if t.IsZero() {
		return nil
	}
	return []uint64{uint64(t.UnixNano())}
}

func toTime(nanos []uint64) time.Time {
	if len(nanos) == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(nanos[len(nanos)-1])).UTC()
}

func fromAny(a *Any) *types.Any {
	if a == nil {
		return nil
	}
	return &types.Any{TypeUrl: a.TypeURL, Value: a.Value}
}

func toAny(m *types.Any) *Any {
	if m == nil {
		return nil
	}
	return &Any{TypeURL: m.TypeUrl, Value: m.Value}
}

func fromAnys(from map[string]Any) map[string]*types.Any {
	if len(from) == 0 {
		return nil
	}
	to := make(map[string]*types.Any, len(from))
	for k, a := range from {
		to[k] = fromAny(&a)
	}
	return to
}

func toAnys(from map[string]*types.Any) map[string]Any {
	if from == nil {
		return nil
	}
	to := make(map[string]Any, len(from))
	for k, m := range from {
		if a := toAny(m); a != nil {
			to[k] = *a
		} else {
			to[k] = Any{}
		}
	}
	return to
}

// writtenLabels returns the labels without those of an empty value, which are not stored; see
// isEmpty.
func writtenLabels(m map[string]string) map[string]string {
	for _, v := range m {
		if isEmpty(v) {
			m = maps.Clone(m)
			maps.DeleteFunc(m, func(_, v string) bool { return isEmpty(v) })
			return m
		}
	}
	return m
}
