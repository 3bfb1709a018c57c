package api

import (
	"context"
	"errors"
	"io"
	"testing"

	_ "github.com/containerd/containerd/api/events"
	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	sandboxapi "github.com/containerd/containerd/api/services/sandbox/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/ttrpc"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	"github.com/cleatproject/cleat/proto/rpc"
)

// unpublished is the topic of a step that succeeds and publishes nothing.
const unpublished = "-"

// step is a call and the topic that it publishes; "" if it must fail.
type step struct {
	topic string
	call  func() error
}

// TestEvents_EveryChange_IsPublishedOnceInOrder makes every kind of change over the API, with refused ones in
// between, and reads the events.
func TestEvents_EveryChange_IsPublishedOnceInOrder(t *testing.T) {
	t.Parallel()
	d := harness.StartUncollected(t) // an unreferenced snapshot is garbage
	ctx, conn := fixture.GRPC(d)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sub, err := eventsapi.NewEventsClient(conn).Subscribe(ctx, &eventsapi.SubscribeRequest{Filters: []string{`topic~=^/`}})
	harness.Must(t, err)
	containers, images := containersapi.NewContainersClient(conn), imagesapi.NewImagesClient(conn)
	namespaces, snapshots := namespacesapi.NewNamespacesClient(conn), snapshotsapi.NewSnapshotsClient(conn)
	sandboxes := sandboxapi.NewStoreClient(conn)
	subscribed(ctx, d, eventsapi.NewEventsClient(conn), sub)

	dgst := digest.FromString("m").String()
	img := &imagesapi.Image{Name: "i", Target: &apitypes.Descriptor{MediaType: "application/x", Digest: dgst, Size: 1}}
	box := &apitypes.Sandbox{SandboxID: "pod", Runtime: &apitypes.Sandbox_Runtime{Name: "r"}}
	c := &containersapi.Container{ID: "c", Image: "i", Runtime: &containersapi.Container_Runtime{Name: "r"}, Sandbox: "pod"}
	labels := &fieldmaskpb.FieldMask{Paths: []string{"labels.k"}}
	steps := []step{
		{"/namespaces/create", func() error {
			_, err := namespaces.Create(ctx, &namespacesapi.CreateNamespaceRequest{Namespace: &namespacesapi.Namespace{Name: "two"}})
			return err
		}},
		{"", func() error {
			_, err := namespaces.Create(ctx, &namespacesapi.CreateNamespaceRequest{Namespace: &namespacesapi.Namespace{Name: "two"}})
			return err
		}},
		{"/namespaces/update", func() error {
			_, err := namespaces.Update(ctx, &namespacesapi.UpdateNamespaceRequest{Namespace: &namespacesapi.Namespace{Name: "two", Labels: map[string]string{"k": "v"}}, UpdateMask: labels})
			return err
		}},
		{"/images/create", func() error {
			_, err := images.Create(ctx, &imagesapi.CreateImageRequest{Image: img})
			return err
		}},
		{"/images/update", func() error {
			_, err := images.Update(ctx, &imagesapi.UpdateImageRequest{Image: img, UpdateMask: labels})
			return err
		}},
		{"/sandboxes/create", func() error {
			_, err := sandboxes.Create(ctx, &sandboxapi.StoreCreateRequest{Sandbox: box})
			return err
		}},
		{"/containers/create", func() error {
			_, err := containers.Create(ctx, &containersapi.CreateContainerRequest{Container: c})
			return err
		}},
		{"", func() error {
			_, err := containers.Update(ctx, &containersapi.UpdateContainerRequest{Container: c, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"runtime"}}})
			return err
		}},
		{"/containers/update", func() error {
			_, err := containers.Update(ctx, &containersapi.UpdateContainerRequest{Container: c, UpdateMask: labels})
			return err
		}},
		{"/snapshot/prepare", func() error {
			_, err := snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: "k"})
			return err
		}},
		{"", func() error {
			_, err := snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: "k"})
			return err
		}},
		{"/snapshot/commit", func() error {
			_, err := snapshots.Commit(ctx, &snapshotsapi.CommitSnapshotRequest{
				Snapshotter: "overlayfs", Key: "k", Name: "layer", Labels: map[string]string{"containerd.io/gc.root": "the test"},
			})
			return err
		}},
		{unpublished, func() error {
			_, err := snapshots.View(ctx, &snapshotsapi.ViewSnapshotRequest{Snapshotter: "overlayfs", Key: "view", Parent: "layer"})
			return err
		}},
		{"", func() error {
			_, err := snapshots.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: "overlayfs", Key: "layer"})
			return err
		}},
		{"/snapshot/remove", func() error {
			_, err := snapshots.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: "overlayfs", Key: "view"})
			return err
		}},
		{"/containers/delete", func() error {
			_, err := containers.Delete(ctx, &containersapi.DeleteContainerRequest{ID: "c"})
			return err
		}},
		{"", func() error { // the name has another image
			_, err := images.Delete(ctx, &imagesapi.DeleteImageRequest{Name: "i", Target: &apitypes.Descriptor{Digest: digest.FromString("other").String()}})
			return err
		}},
		{"/images/delete", func() error {
			_, err := images.Delete(ctx, &imagesapi.DeleteImageRequest{Name: "i", Sync: true, Target: img.Target})
			return err
		}},
		{"/namespaces/delete", func() error {
			_, err := namespaces.Delete(ctx, &namespacesapi.DeleteNamespaceRequest{Name: "two"})
			return err
		}},
	}
	for i, s := range steps {
		if err := s.call(); (err == nil) != (s.topic != "") {
			t.Fatalf("step %d %s: %v", i, s.topic, err)
		}
	}
	for i, s := range steps {
		if s.topic == "" || s.topic == unpublished {
			continue
		}
		e, err := sub.Recv()
		harness.Must(t, err)
		if e.GetTopic() != s.topic {
			t.Fatalf("step %d: published %s, want %s", i, e.GetTopic(), s.topic)
		}
		if m, err := e.GetEvent().UnmarshalNew(); err != nil || proto.Size(m) == 0 {
			t.Errorf("step %d: %s carries %v, %v", i, s.topic, e.GetEvent(), err)
		}
	}
	_, err = snapshots.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: "overlayfs", Key: "layer"})
	harness.Must(t, err)
	_, err = sandboxes.Delete(ctx, &sandboxapi.StoreDeleteRequest{SandboxID: "pod"})
	harness.Must(t, err)
}

// subscribed publishes until the subscription receives it, so that it receives everything that follows.
func subscribed(ctx context.Context, d *harness.Daemon, c eventsapi.EventsClient, sub eventsapi.Events_SubscribeClient) {
	d.T.Helper()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := c.Publish(ctx, &eventsapi.PublishRequest{Topic: "/hello", Event: &anypb.Any{TypeUrl: "x", Value: []byte{1}}}); err != nil {
				return
			}
		}
	}()
	_, err := sub.Recv()
	close(stop)
	<-done
	harness.Must(d.T, err)
	_, err = c.Publish(ctx, &eventsapi.PublishRequest{Topic: "/go", Event: &anypb.Any{TypeUrl: "x", Value: []byte{1}}})
	harness.Must(d.T, err)
	for {
		e, err := sub.Recv()
		if errors.Is(err, io.EOF) {
			d.T.Fatal("the subscription ended")
		}
		harness.Must(d.T, err)
		if e.GetTopic() == "/go" {
			return
		}
	}
}

// TestSandboxStore takes a sandbox's record through its life over both transports.
func TestSandboxStore(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	raw, err := rpc.DialSocket(t.Context(), d.Address+".ttrpc")
	harness.Must(t, err)
	client := ttrpc.NewClient(raw)
	defer client.Close()
	ttrpcCtx := ttrpc.WithMetadata(t.Context(), ttrpc.MD{"containerd-namespace-ttrpc": {"default"}})
	overTTRPC, overGRPC := sandboxapi.NewTTRPCStoreClient(client), sandboxapi.NewStoreClient(conn)

	box := &apitypes.Sandbox{
		SandboxID: "pod", Sandboxer: "podsandbox", Labels: map[string]string{"app": "web"},
		Runtime:    &apitypes.Sandbox_Runtime{Name: "r", Options: &anypb.Any{TypeUrl: "o", Value: []byte{0, 1}}},
		Spec:       &anypb.Any{TypeUrl: "s", Value: []byte("{ }")},
		Extensions: map[string]*anypb.Any{"x": {TypeUrl: "t", Value: []byte("v")}},
	}
	created, err := overTTRPC.Create(ttrpcCtx, &sandboxapi.StoreCreateRequest{Sandbox: box})
	harness.Must(t, err)
	got, err := overGRPC.Get(ctx, &sandboxapi.StoreGetRequest{SandboxID: "pod"})
	harness.Must(t, err)
	if !proto.Equal(created.GetSandbox(), got.GetSandbox()) || string(got.GetSandbox().GetSpec().GetValue()) != "{ }" {
		t.Errorf("created %v, got %v", created, got)
	}
	d.Restart()
	ctx, conn = fixture.GRPC(d)
	overGRPC = sandboxapi.NewStoreClient(conn)
	_, err = overGRPC.Update(ctx, &sandboxapi.StoreUpdateRequest{
		Sandbox: &apitypes.Sandbox{SandboxID: "pod", Labels: map[string]string{"app": "db"}}, Fields: []string{"labels.app"},
	})
	harness.Must(t, err)
	list, err := overGRPC.List(ctx, &sandboxapi.StoreListRequest{Filters: []string{"labels.app==db,sandboxer==podsandbox"}})
	harness.Must(t, err)
	if len(list.GetList()) != 1 || list.GetList()[0].GetExtensions()["x"].GetTypeUrl() != "t" {
		t.Errorf("listed %v", list)
	}
	_, err = overGRPC.Delete(ctx, &sandboxapi.StoreDeleteRequest{SandboxID: "pod"})
	harness.Must(t, err)
	if _, err = overGRPC.Get(ctx, &sandboxapi.StoreGetRequest{SandboxID: "pod"}); status.Code(err) != codes.NotFound {
		t.Errorf("get after delete: %v", err)
	}
}
