package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	apievents "github.com/containerd/containerd/api/events"
	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/task"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// reader subscribes to all events and reads, on each, the object that the event concerns.
type reader struct {
	t     *testing.T
	conn  *grpc.ClientConn
	tasks tasksapi.TasksClient
	// oomKilled reports whether the container is shown as one that ran out of memory.
	oomKilled func(id string) bool

	mu   sync.Mutex
	seen map[string]int  // events by topic
	done map[string]bool // the topic and object of each event that was checked
}

// readEvents subscribes until the end of the test.
func readEvents(ctx context.Context, t *testing.T, conn *grpc.ClientConn) *reader {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	events := eventsapi.NewEventsClient(conn)
	stream, err := events.Subscribe(ctx, &eventsapi.SubscribeRequest{})
	harness.Must(t, err)
	r := &reader{t: t, conn: conn, tasks: tasksapi.NewTasksClient(conn), seen: make(map[string]int), done: make(map[string]bool)}
	ended := make(chan struct{})
	var begun atomic.Bool
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	go func() {
		defer close(ended)
		for {
			e, err := stream.Recv()
			if err != nil {
				return
			}
			msg, err := e.GetEvent().UnmarshalNew()
			if err != nil {
				t.Errorf("%s: %v", e.GetTopic(), err)
				continue
			}
			if e.GetTopic() == "/mark" {
				begun.Store(true)
				continue
			}
			name, err := r.look(ctx, e.GetTopic(), msg)
			if err != nil && ctx.Err() == nil { // otherwise the test has ended
				t.Errorf("on %s of %s: %v", e.GetTopic(), name, err)
			}
			r.mu.Lock()
			r.seen[e.GetTopic()]++
			r.done[e.GetTopic()+" "+name] = true
			r.mu.Unlock()
		}
	}()
	harness.Eventually(t, "the subscription", func() error {
		if begun.Load() {
			return nil
		}
		return fixture.PublishMark(ctx, events)
	})
	return r
}

// await waits until the event was checked.
func (r *reader) await(topic, name string) {
	r.t.Helper()
	harness.Eventually(r.t, topic+" of "+name, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if !r.done[topic+" "+name] {
			return errors.New("no event yet")
		}
		return nil
	})
}

// look returns the name of the object, and an error if the state of the object differs from the event.
func (r *reader) look(ctx context.Context, topic string, msg any) (string, error) {
	switch e := msg.(type) {
	case *apievents.TaskCreate:
		return e.ContainerID, r.taskIs(ctx, e.ContainerID, "", task.Status_CREATED, task.Status_RUNNING, task.Status_STOPPED)
	case *apievents.TaskStart:
		return e.ContainerID, r.taskIs(ctx, e.ContainerID, "", task.Status_RUNNING, task.Status_STOPPED)
	case *apievents.TaskPaused:
		return e.ContainerID, r.taskIs(ctx, e.ContainerID, "", task.Status_PAUSED)
	case *apievents.TaskResumed:
		return e.ContainerID, r.taskIs(ctx, e.ContainerID, "", task.Status_RUNNING)
	case *apievents.TaskExecAdded:
		return e.ExecID, r.taskIs(ctx, e.ContainerID, e.ExecID, task.Status_CREATED, task.Status_RUNNING, task.Status_STOPPED)
	case *apievents.TaskExecStarted:
		return e.ExecID, r.taskIs(ctx, e.ContainerID, e.ExecID, task.Status_RUNNING, task.Status_STOPPED)
	case *apievents.TaskExit:
		return e.ID, r.exited(ctx, e)
	case *apievents.TaskOOM:
		if !r.oomKilled(e.ContainerID) {
			return e.ContainerID, errors.New("the record differs from the event")
		}
		return e.ContainerID, nil
	case *apievents.TaskDelete:
		_, err := r.tasks.Get(ctx, &tasksapi.GetRequest{ContainerID: e.ContainerID})
		return e.ContainerID, r.gone(err)
	}
	return r.lookAtRecord(ctx, topic, msg)
}

// taskIs returns an error unless the process is in one of the states.
func (r *reader) taskIs(ctx context.Context, id, execID string, want ...task.Status) error {
	resp, err := r.tasks.Get(ctx, &tasksapi.GetRequest{ContainerID: id, ExecID: execID})
	if err != nil {
		return err
	}
	for _, s := range want {
		if resp.Process.Status == s {
			if (s == task.Status_STOPPED) != (resp.Process.ExitedAt.IsValid() && resp.Process.ExitedAt.Seconds > 0) {
				return fmt.Errorf("status %s, exited at %v", s, resp.Process.ExitedAt)
			}
			return nil
		}
	}
	return fmt.Errorf("status %s, want %v", resp.Process.Status, want)
}

func (r *reader) exited(ctx context.Context, e *apievents.TaskExit) error {
	execID := e.ID
	if execID == e.ContainerID {
		execID = ""
	}
	resp, err := r.tasks.Get(ctx, &tasksapi.GetRequest{ContainerID: e.ContainerID, ExecID: execID})
	if status.Code(err) == codes.NotFound && execID != "" {
		return nil // the driver deletes it when its own wait returns
	}
	if err != nil {
		return err
	}
	if resp.Process.Status != task.Status_STOPPED || resp.Process.ExitStatus != e.ExitStatus {
		return fmt.Errorf("status %s, exit code %d", resp.Process.Status, resp.Process.ExitStatus)
	}
	return nil
}

// gone returns nil if err is "not found", and an error otherwise.
func (r *reader) gone(err error) error {
	if status.Code(err) != codes.NotFound {
		return fmt.Errorf("object is still present: %s", status.Code(err))
	}
	return nil
}

// lookAtRecord is look for objects of the database.
func (r *reader) lookAtRecord(ctx context.Context, topic string, msg any) (string, error) {
	switch e := msg.(type) {
	case *apievents.ContainerCreate:
		return e.ID, r.container(ctx, e.ID, topic)
	case *apievents.ContainerUpdate:
		return e.ID, r.container(ctx, e.ID, topic)
	case *apievents.ContainerDelete:
		return e.ID, r.gone(r.container(ctx, e.ID, topic))
	case *apievents.ImageCreate:
		return e.Name, r.image(ctx, e.Name)
	case *apievents.ImageUpdate:
		return e.Name, r.image(ctx, e.Name)
	case *apievents.ImageDelete:
		return e.Name, r.gone(r.image(ctx, e.Name))
	case *apievents.NamespaceCreate:
		return e.Name, r.namespace(ctx, e.Name)
	case *apievents.NamespaceUpdate:
		return e.Name, r.namespace(ctx, e.Name)
	case *apievents.NamespaceDelete:
		return e.Name, r.gone(r.namespace(ctx, e.Name))
	case *apievents.SnapshotPrepare:
		return e.Key, r.snapshot(ctx, e.Snapshotter, e.Key)
	case *apievents.SnapshotCommit:
		return e.Name, r.snapshot(ctx, e.Snapshotter, e.Name)
	case *apievents.SnapshotRemove:
		return e.Key, r.gone(r.snapshot(ctx, e.Snapshotter, e.Key))
	case *apievents.ContentCreate:
		return e.Digest, r.blob(ctx, e.Digest)
	case *apievents.ContentDelete:
		return e.Digest, r.gone(r.blob(ctx, e.Digest))
	default:
		return r.lookAtSandbox(ctx, e)
	}
}

func (r *reader) container(ctx context.Context, id, _ string) error {
	_, err := containersapi.NewContainersClient(r.conn).Get(ctx, &containersapi.GetContainerRequest{ID: id})
	return err
}

func (r *reader) image(ctx context.Context, name string) error {
	_, err := imagesapi.NewImagesClient(r.conn).Get(ctx, &imagesapi.GetImageRequest{Name: name})
	return err
}

func (r *reader) namespace(ctx context.Context, name string) error {
	// Get succeeds for a namespace that was never created, too.
	resp, err := namespacesapi.NewNamespacesClient(r.conn).List(ctx, &namespacesapi.ListNamespacesRequest{})
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(resp.Namespaces, func(n *namespacesapi.Namespace) bool { return n.Name == name }) {
		return status.Error(codes.NotFound, name)
	}
	return nil
}

func (r *reader) snapshot(ctx context.Context, snapshotter, key string) error {
	_, err := snapshotsapi.NewSnapshotsClient(r.conn).Stat(ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: snapshotter, Key: key})
	return err
}

func (r *reader) blob(ctx context.Context, digest string) error {
	_, err := contentapi.NewContentClient(r.conn).Info(ctx, &contentapi.InfoRequest{Digest: digest})
	return err
}

// TestEvents_ObjectsMatchEachEvent reads the object of each event immediately after its arrival. The object has the
// state that the event reports, for every topic, on cleat's shim and on a foreign one.
func TestEvents_ObjectsMatchEachEvent(t *testing.T) {
	t.Parallel()
	foreign, err := exec.LookPath("containerd-shim-runc-v2")
	harness.Must(t, err)
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	_, driver := fixture.GRPC(d)
	r := readEvents(ctx, t, conn)
	for name, c := range map[string]struct {
		runtime string
		rounds  int
	}{"own": {"", 75}, "foreign": {foreign, 15}} {
		for i := range c.rounds {
			lifeOfObservedTask(ctx, d, r, driver, fmt.Sprintf("%s-%d", name, i), c.runtime)
		}
		for _, topic := range strings.Fields("/tasks/create /tasks/start /tasks/exec-added /tasks/exec-started /tasks/paused /tasks/resumed /tasks/exit /tasks/delete /containers/create /containers/update /containers/delete") {
			if r.seen[topic] < c.rounds {
				t.Errorf("%s: %d events %s in %d rounds", name, r.seen[topic], topic, c.rounds)
			}
		}
		clear(r.seen)
	}
	const rounds = 25
	for i := range rounds {
		lifeOfRecords(ctx, t, r, driver, fmt.Sprint(i))
	}
	for _, topic := range strings.Fields("/images/create /images/update /images/delete /namespaces/create /namespaces/update /namespaces/delete /snapshot/prepare /snapshot/commit /snapshot/remove /content/create") {
		if r.seen[topic] < rounds {
			t.Errorf("%d events %s in %d rounds", r.seen[topic], topic, rounds)
		}
	}
}

// lifeOfObservedTask takes a task through its life. It waits for the check of each event whose state the next step would
// change.
func lifeOfObservedTask(ctx context.Context, d *harness.Daemon, r *reader, conn *grpc.ClientConn, id, runtime string) {
	t := d.T
	t.Helper()
	_, tasks := fixture.CreateTask(d, id, fixture.BusyboxSpec(t, "sleep", "1000"), runtime)
	containers := containersapi.NewContainersClient(conn)
	_, err := containers.Update(ctx, &containersapi.UpdateContainerRequest{
		Container: &containersapi.Container{ID: id, Labels: map[string]string{"a": "b"}}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels.a"}},
	})
	harness.Must(t, err)
	fixture.StartTask(ctx, d, tasks, id)
	exec := id + "-x"
	_, err = tasks.Exec(ctx, &tasksapi.ExecProcessRequest{ContainerID: id, ExecID: exec, Spec: &anypb.Any{
		TypeUrl: harness.ResourcesURL + "Process", Value: []byte(`{"args":["/bin/true"],"cwd":"/"}`),
	}})
	harness.Must(t, err)
	_, err = tasks.Start(ctx, &tasksapi.StartRequest{ContainerID: id, ExecID: exec})
	harness.Must(t, err)
	r.await("/tasks/exit", exec)
	_, err = tasks.DeleteProcess(ctx, &tasksapi.DeleteProcessRequest{ContainerID: id, ExecID: exec})
	harness.Must(t, err)
	_, err = tasks.Pause(ctx, &tasksapi.PauseTaskRequest{ContainerID: id})
	harness.Must(t, err)
	r.await("/tasks/paused", id)
	_, err = tasks.Resume(ctx, &tasksapi.ResumeTaskRequest{ContainerID: id})
	harness.Must(t, err)
	r.await("/tasks/resumed", id)
	r.endTask(ctx, tasks, conn, id)
}

// endTask kills a task and deletes it with its container. It waits for the check of the exit before the deletion.
func (r *reader) endTask(ctx context.Context, tasks tasksapi.TasksClient, conn *grpc.ClientConn, id string) {
	r.t.Helper()
	_, err := tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: id, Signal: uint32(unix.SIGKILL)})
	harness.Must(r.t, err)
	r.await("/tasks/exit", id)
	_, err = tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id})
	harness.Must(r.t, err)
	_, err = containersapi.NewContainersClient(conn).Delete(ctx, &containersapi.DeleteContainerRequest{ID: id})
	harness.Must(r.t, err)
	r.await("/containers/delete", id)
}

// lifeOfRecords creates, updates and deletes one object of each kind that exists only as a record.
func lifeOfRecords(ctx context.Context, t *testing.T, r *reader, conn *grpc.ClientConn, i string) {
	t.Helper()
	data := []byte("blob " + i)
	digest := harness.DigestOf(string(data))
	writer, err := contentapi.NewContentClient(conn).Write(ctx)
	harness.Must(t, err)
	harness.Must(t, writer.Send(&contentapi.WriteContentRequest{
		Action: contentapi.WriteAction_COMMIT, Ref: i, Total: int64(len(data)), Expected: digest, Data: bytes.Clone(data),
		Labels: map[string]string{"containerd.io/gc.root": "now"},
	}))
	_, err = writer.Recv()
	harness.Must(t, err)
	harness.Must(t, writer.CloseSend())
	r.await("/content/create", digest)

	images, name := imagesapi.NewImagesClient(conn), "example.org/image:"+i
	image := &imagesapi.Image{Name: name, Target: &types.Descriptor{MediaType: "application/octet-stream", Digest: digest, Size: int64(len(data))}}
	_, err = images.Create(ctx, &imagesapi.CreateImageRequest{Image: image})
	harness.Must(t, err)
	r.await("/images/create", name)
	image.Labels = map[string]string{"a": "b"}
	_, err = images.Update(ctx, &imagesapi.UpdateImageRequest{Image: image})
	harness.Must(t, err)
	r.await("/images/update", name)
	_, err = images.Delete(ctx, &imagesapi.DeleteImageRequest{Name: name})
	harness.Must(t, err)
	r.await("/images/delete", name)

	namespaces, ns := namespacesapi.NewNamespacesClient(conn), "ns"+i
	_, err = namespaces.Create(ctx, &namespacesapi.CreateNamespaceRequest{Namespace: &namespacesapi.Namespace{Name: ns}})
	harness.Must(t, err)
	r.await("/namespaces/create", ns)
	_, err = namespaces.Update(ctx, &namespacesapi.UpdateNamespaceRequest{Namespace: &namespacesapi.Namespace{Name: ns, Labels: map[string]string{"a": "b"}}})
	harness.Must(t, err)
	r.await("/namespaces/update", ns)
	_, err = namespaces.Delete(ctx, &namespacesapi.DeleteNamespaceRequest{Name: ns})
	harness.Must(t, err)
	r.await("/namespaces/delete", ns)

	snapshots, root := snapshotsapi.NewSnapshotsClient(conn), map[string]string{"containerd.io/gc.root": "now"}
	_, err = snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: "key" + i, Labels: root})
	harness.Must(t, err)
	r.await("/snapshot/prepare", "key"+i)
	_, err = snapshots.Commit(ctx, &snapshotsapi.CommitSnapshotRequest{Snapshotter: "overlayfs", Name: "name" + i, Key: "key" + i, Labels: root})
	harness.Must(t, err)
	r.await("/snapshot/commit", "name"+i)
	_, err = snapshots.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: "overlayfs", Key: "name" + i})
	harness.Must(t, err)
	r.await("/snapshot/remove", "name"+i)
}
