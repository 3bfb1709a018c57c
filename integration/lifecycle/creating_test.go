package lifecycle

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// TestCalls_CreateInProgress_Wait refers to a task that the OCI runtime still creates. A client does that if it
// attaches a stream before its create returns.
func TestCalls_CreateInProgress_Wait(t *testing.T) {
	dir := t.TempDir()
	started, release := filepath.Join(dir, "started"), filepath.Join(dir, "go")
	harness.OCIWrapper(t, fmt.Sprintf(`if [ "$verb" = create ]; then : > %s; while ! [ -e %s ]; do sleep 0.05; done; ! [ -e %s ] || exit 1; fi`,
		started, release, release+"-fail"))
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	ctx, cancel := context.WithTimeout(ctx, harness.Limit)
	defer cancel()
	tasks := tasksapi.NewTasksClient(conn)
	for _, id := range []string{"well", "badly"} {
		_, err := containersapi.NewContainersClient(conn).Create(ctx, &containersapi.CreateContainerRequest{Container: &containersapi.Container{
			ID: id, Runtime: &containersapi.Container_Runtime{Name: "io.containerd.runc.v2"}, Spec: fixture.APISpec(t, fixture.BusyboxSpec(t, "cat")),
		}})
		harness.Must(t, err)
		stdin := filepath.Join(dir, id)
		harness.Must(t, unix.Mkfifo(stdin, 0o600))
		created := make(chan error, 1)
		go func() {
			_, err := tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: id, Rootfs: fixture.Rootfs(d), Stdin: stdin})
			created <- err
		}()
		d.Eventually("the OCI runtime creates "+id, harness.Exists(started))

		calls := map[string]func(ctx context.Context) error{
			"get": func(ctx context.Context) error {
				resp, err := tasks.Get(ctx, &tasksapi.GetRequest{ContainerID: id})
				if err == nil && resp.Process.Status != task.Status_CREATED {
					return fmt.Errorf("status %s", resp.Process.Status)
				}
				return err
			},
			"close stdin": func(ctx context.Context) error {
				_, err := tasks.CloseIO(ctx, &tasksapi.CloseIORequest{ContainerID: id, Stdin: true})
				return err
			},
			"pids": func(ctx context.Context) error {
				_, err := tasks.ListPids(ctx, &tasksapi.ListPidsRequest{ContainerID: id})
				return err
			},
		}
		results := make(map[string]chan error)
		for name, call := range calls {
			short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			if err := call(short); status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("%s with a deadline during the creation: %v", name, err)
			}
			cancel()
			results[name] = make(chan error, 1)
			go func() { results[name] <- call(ctx) }()
		}
		want := codes.OK
		if id == "badly" {
			want = codes.NotFound
			touch(t, release+"-fail")
		}
		touch(t, release)
		if err := <-created; (err == nil) != (want == codes.OK) {
			t.Errorf("create %s: %v", id, err)
		}
		for name, result := range results {
			if err := <-result; status.Code(err) != want {
				t.Errorf("%s during the creation of %s: %v, want %s", name, id, err, want)
			}
		}
		if want == codes.OK { // stdin was closed before the start
			fixture.StartTask(ctx, d, tasks, id)
			fixture.WaitTask(ctx, d, tasks, id, 0)
			_, err = tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id})
			harness.Must(t, err)
		}
		_, err = containersapi.NewContainersClient(conn).Delete(ctx, &containersapi.DeleteContainerRequest{ID: id})
		harness.Must(t, err)
		harness.Must(t, unix.Unlink(release))
		harness.Must(t, unix.Unlink(started))
	}
	_, err := tasks.Get(ctx, &tasksapi.GetRequest{ContainerID: "never"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("missing task: %v", err)
	}
}

// touch creates an empty file.
func touch(t *testing.T, path string) {
	t.Helper()
	harness.Must(t, os.WriteFile(path, nil, 0o600))
}
