package faults

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	apievents "github.com/containerd/containerd/api/events"
	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// engine is a client like dockerd: it learns of exits only from events, reads the task on each exit, and deletes the
// task.
type engine struct {
	tasks      tasksapi.TasksClient
	containers containersapi.ContainersClient

	mu    sync.Mutex
	exits map[string]chan error // by container: the result of the check on its exit event
}

// follow reads exit events until the stream ends.
func (e *engine) follow(ctx context.Context, stream eventsapi.Events_SubscribeClient, mark func()) {
	var reading sync.WaitGroup
	defer reading.Wait()
	for {
		envelope, err := stream.Recv()
		if err != nil {
			return
		}
		if envelope.GetTopic() == "/mark" {
			mark()
			continue
		}
		msg, err := envelope.GetEvent().UnmarshalNew()
		exit, ok := msg.(*apievents.TaskExit)
		if err != nil || !ok || exit.ID != exit.ContainerID {
			continue
		}
		// Immediately, as in dockerd; each container's in its own goroutine.
		reading.Go(func() {
			e.mu.Lock()
			result := e.exits[exit.ContainerID]
			e.mu.Unlock()
			if result != nil {
				result <- e.look(ctx, exit)
			}
		})
	}
}

// look reads the task of an exit event.
func (e *engine) look(ctx context.Context, exit *apievents.TaskExit) error {
	resp, err := e.tasks.Get(ctx, &tasksapi.GetRequest{ContainerID: exit.ContainerID})
	if err != nil {
		return fmt.Errorf("get after the exit event: %w", err)
	}
	if p := resp.Process; p.Status != task.Status_STOPPED || p.ExitStatus != exit.ExitStatus || p.Pid != exit.Pid {
		return fmt.Errorf("after the exit event of pid %d with status %d: %v", exit.Pid, exit.ExitStatus, p)
	}
	wait, err := e.tasks.Wait(ctx, &tasksapi.WaitRequest{ContainerID: exit.ContainerID})
	if err != nil || wait.ExitStatus != exit.ExitStatus {
		return fmt.Errorf("wait after the exit event with status %d: %v, %w", exit.ExitStatus, wait, err)
	}
	return nil
}

// life runs one short container and compares every response about it.
func (e *engine) life(ctx context.Context, d *harness.Daemon, id string, code int) error {
	exit := make(chan error, 4)
	e.mu.Lock()
	e.exits[id] = exit
	e.mu.Unlock()
	spec := fixture.BusyboxSpec(d.T, "sh", "-c", "exit "+strconv.Itoa(code))
	_, err := e.containers.Create(ctx, &containersapi.CreateContainerRequest{Container: &containersapi.Container{
		ID: id, Runtime: &containersapi.Container_Runtime{Name: "io.containerd.runc.v2"}, Spec: fixture.APISpec(d.T, spec),
	}})
	if err != nil {
		return err
	}
	if _, err := e.tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: id, Rootfs: fixture.Rootfs(d)}); err != nil {
		return err
	}
	if _, err := e.tasks.Start(ctx, &tasksapi.StartRequest{ContainerID: id}); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, harness.Limit)
	defer cancel()
	select {
	case err := <-exit:
		if err != nil {
			return err
		}
	case <-bounded.Done():
		return errors.New("no exit event")
	}
	deleted, err := e.tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id})
	if err != nil || int(deleted.ExitStatus) != code {
		return fmt.Errorf("delete: %v, %w", deleted, err)
	}
	if _, err := e.tasks.Get(ctx, &tasksapi.GetRequest{ContainerID: id}); status.Code(err) != codes.NotFound {
		return fmt.Errorf("get after the deletion: %w", err)
	}
	if _, err := e.containers.Delete(ctx, &containersapi.DeleteContainerRequest{ID: id}); err != nil {
		return err
	}
	select {
	case err := <-exit:
		return fmt.Errorf("a second exit event (%w)", err)
	default:
		return nil
	}
}

// TestSoak_DockerLikeClients runs short containers, several in parallel, from clients that read a task on each of its
// events.
func TestSoak_DockerLikeClients(t *testing.T) {
	t.Parallel()
	n := harness.Size(200, 10000)
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	ctx, cancel := context.WithCancel(ctx)
	e := &engine{tasks: tasksapi.NewTasksClient(conn), containers: containersapi.NewContainersClient(conn), exits: make(map[string]chan error)}
	events := eventsapi.NewEventsClient(conn)
	stream, err := events.Subscribe(ctx, &eventsapi.SubscribeRequest{})
	harness.Must(t, err)
	begun := make(chan struct{})
	var followed sync.WaitGroup
	var once sync.Once
	followed.Go(func() { e.follow(ctx, stream, func() { once.Do(func() { close(begun) }) }) })
	defer followed.Wait()
	defer cancel()
	harness.Eventually(t, "the subscription", func() error {
		select {
		case <-begun:
			return nil
		default:
			return fixture.PublishMark(ctx, events)
		}
	})

	work := make(chan int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range work {
				if err := e.life(ctx, d, fmt.Sprintf("soak-%d", i), i%200); err != nil {
					t.Errorf("container %d: %v", i, err)
				}
			}
		})
	}
	for i := range n {
		if t.Failed() {
			break
		}
		work <- i
	}
	close(work)
	wg.Wait()
	for line := range strings.Lines(d.Log()) {
		if strings.Contains(line, "level=ERROR") {
			t.Error(line)
		}
	}
}
