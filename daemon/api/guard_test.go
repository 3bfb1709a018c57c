package api

import (
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/cleatproject/cleat/daemon/streams"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// same compares two rules, which are functions.
func same(a, b rule) bool { return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer() }

// Streams over ttrpc are not checked, so that a stream must be allowed or refused on no condition. None is refused:
// over ttrpc it would not be.
func TestStreams_HaveNoConditions(t *testing.T) {
	srv := NewGRPC(Parts{Streams: streams.New(streams.Options{}), Log: slog.New(slog.DiscardHandler)}, nil)
	defer srv.Stop()
	table := rules()
	seen := 0
	for service, info := range srv.GetServiceInfo() {
		for _, m := range info.Methods {
			name := "/" + service + "/" + m.Name
			r, ok := table[name]
			seen++
			if !ok {
				t.Errorf("%s: no rule", name)
				continue
			}
			if (m.IsServerStream || m.IsClientStream) && !same(r, allow) {
				t.Errorf("%s: a stream with a condition", name)
			}
		}
	}
	if seen < 80 {
		t.Errorf("%d methods seen, which is too few", seen)
	}
	for _, name := range []string{"/cleat.v1.Images/Convert", "/cleat.v1.Events/Subscribe"} {
		if !same(table[name], allow) {
			t.Errorf("%s: a stream with a condition", name)
		}
	}
}

// judgement of the fields of a request: checked by the guard, or harmless, as they name neither a path of the host
// nor a privilege.
type judgement struct {
	request           proto.Message
	checked, harmless []string
}

func judgements() []judgement {
	containerFields := []string{
		"container.id", "container.image", "container.snapshotter", "container.snapshot_key", "container.created_at", "container.updated_at",
	}
	containerChecked := []string{"container.labels", "container.runtime", "container.spec", "container.extensions", "container.sandbox"}
	return []judgement{
		{&containersapi.CreateContainerRequest{}, containerChecked, containerFields},
		{&containersapi.UpdateContainerRequest{}, containerChecked, append(slices.Clone(containerFields), "update_mask")},
		{
			&tasksapi.CreateTaskRequest{},
			[]string{"rootfs", "stdin", "stdout", "stderr", "checkpoint", "options", "runtime_path", "task_api_address"},
			[]string{"container_id", "terminal", "task_api_version"}, // the version has no meaning without its address
		},
		{&tasksapi.ExecProcessRequest{}, []string{"stdin", "stdout", "stderr", "spec"}, []string{"container_id", "terminal", "exec_id"}},
		{&tasksapi.UpdateTaskRequest{}, []string{"resources", "annotations"}, []string{"container_id"}},
		{&leasesapi.CreateRequest{}, []string{"labels"}, []string{"id"}},
		{&namespacesapi.CreateNamespaceRequest{}, []string{"namespace.labels"}, []string{"namespace.name"}},
		{&namespacesapi.UpdateNamespaceRequest{}, []string{"namespace.labels"}, []string{"namespace.name", "update_mask"}},
		{&introspectionapi.PluginInfoRequest{}, []string{"options"}, []string{"type", "id"}},
		{&imagesapi.CreateImageRequest{}, []string{"image.labels"}, []string{"image.name", "image.target", "image.created_at", "image.updated_at", "source_date_epoch"}},
		{&imagesapi.UpdateImageRequest{}, []string{"image.labels"}, []string{"image.name", "image.target", "image.created_at", "image.updated_at", "update_mask", "source_date_epoch"}},
		{&snapshotsapi.PrepareSnapshotRequest{}, []string{"labels"}, []string{"snapshotter", "key", "parent"}},
		{&snapshotsapi.ViewSnapshotRequest{}, []string{"labels"}, []string{"snapshotter", "key", "parent"}},
		{&snapshotsapi.CommitSnapshotRequest{}, []string{"labels"}, []string{"snapshotter", "name", "key", "parent"}},
		{&snapshotsapi.UpdateSnapshotRequest{}, []string{"info.labels"}, []string{"snapshotter", "info.name", "info.parent", "info.kind", "info.created_at", "info.updated_at", "update_mask"}},
		{&transferapi.TransferRequest{}, []string{"source", "destination"}, []string{"options"}},
		{&transfertypes.OCIRegistry{}, []string{"resolver.host_dir"}, []string{
			"reference", "resolver.auth_stream", "resolver.headers", "resolver.default_scheme", "resolver.http_debug", "resolver.logs_stream",
		}},
	}
}

// Every field of a request with a condition is judged: a new version of the API must not bring a way out.
func TestEveryField_OfConditionalRequests_IsJudged(t *testing.T) {
	for _, j := range judgements() {
		var have []string
		fields := j.request.ProtoReflect().Descriptor()
		for i := range fields.Fields().Len() {
			have = append(have, names(fields.Fields().Get(i), "")...)
		}
		judged := append(slices.Clone(j.checked), j.harmless...)
		slices.Sort(have)
		slices.Sort(judged)
		if !slices.Equal(have, judged) {
			t.Errorf("%s: fields %v, judged %v", fields.FullName(), have, judged)
		}
	}
}

// names returns the name of a field, or for those that hold an object, of the fields in it.
func names(f protoreflect.FieldDescriptor, prefix string) []string {
	name := prefix + string(f.Name())
	objects := []string{"container", "namespace", "image", "info", "resolver"}
	if f.Message() == nil || f.IsMap() || !slices.Contains(objects, string(f.Name())) || prefix != "" {
		return []string{name}
	}
	var out []string
	for i := range f.Message().Fields().Len() {
		out = append(out, names(f.Message().Fields().Get(i), name+".")...)
	}
	return out
}

// The same for cleat's own Run, whose messages have no descriptors.
func TestEveryField_OfRun_IsJudged(t *testing.T) {
	checked := []string{"Spec", "Labels", "Runtime", "Options", "Stdin", "Stdout", "Stderr", "Rootfs"}
	harmless := []string{"Id", "Image", "Platform", "User", "Snapshotter", "Terminal", "Log", "AutoRemove", "Token", "StorageSize"}
	judged := append(checked, harmless...)
	typ := reflect.TypeFor[cleatapi.RunRequest]()
	for i := range typ.NumField() {
		if name := typ.Field(i).Name; !slices.Contains(judged, name) && !strings.HasPrefix(name, "XXX_") {
			t.Errorf("%s: neither checked nor listed as harmless", name)
		}
	}
}
