package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatproject/cleat/client/spec"
)

// lifecycleScenario runs complete life cycles of containers over the containerd API on gRPC, the same
// calls for both daemons.
func lifecycleScenario(concurrency int) scenario {
	name := fmt.Sprintf("api%d", concurrency)
	return scenario{
		name: name, unit: "containers/s", moreWins: true, rounds: 10,
		what:    fmt.Sprintf("create, start, wait and delete over the API, %d at once", concurrency),
		targets: []target{{variant: "cleatd", base: "containerd", limit: 2}},
		prepare: func(_ context.Context, e *environment) ([]variant, func() error, error) {
			ours, err1 := newCaller(e, e.cleat.address)
			theirs, err2 := newCaller(e, e.peer.address)
			if err := errors.Join(err1, err2); err != nil {
				return nil, nil, err
			}
			return []variant{
				{"cleatd", func(ctx context.Context) (float64, error) { return ours.rate(ctx, concurrency) }},
				{"containerd", func(ctx context.Context) (float64, error) { return theirs.rate(ctx, concurrency) }},
			}, func() error { return errors.Join(ours.conn.Close(), theirs.conn.Close()) }, nil
		},
	}
}

// caller makes the calls of a client of the containerd API.
type caller struct {
	e          *environment
	conn       *grpc.ClientConn
	containers containersapi.ContainersClient
	snapshots  snapshotsapi.SnapshotsClient
	tasks      tasksapi.TasksClient
}

const (
	snapshotter = "overlayfs"
	specType    = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
	runtimeName = "io.containerd.runc.v2"
	// each is the number of life cycles per worker in a measurement.
	each = 4
)

func newCaller(e *environment, address string) (*caller, error) {
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return &caller{
		e: e, conn: conn,
		containers: containersapi.NewContainersClient(conn),
		snapshots:  snapshotsapi.NewSnapshotsClient(conn),
		tasks:      tasksapi.NewTasksClient(conn),
	}, nil
}

// rate runs life cycles in workers, and returns how many complete per second.
func (c *caller) rate(ctx context.Context, workers int) (float64, error) {
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", c.e.namespace)
	ids := make([]string, workers*each)
	for i := range ids {
		ids[i] = c.e.nextID("api")
	}
	var wg sync.WaitGroup
	errs := make([]error, workers)
	began := time.Now()
	for w := range workers {
		wg.Go(func() {
			for _, id := range ids[w*each : (w+1)*each] {
				if errs[w] = c.life(ctx, id); errs[w] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return float64(len(ids)) / time.Since(began).Seconds(), errors.Join(errs...)
}

func (c *caller) life(ctx context.Context, id string) error {
	s, err := spec.Generate(spec.Image{}, spec.Options{Args: []string{"/bin/true"}, Hostname: "bench"})
	if err != nil {
		return err
	}
	s.Linux.CgroupsPath = "/" + c.e.namespace + "/" + id
	encoded, err := json.Marshal(s)
	if err != nil {
		return err
	}
	// The record comes first: an unreferenced snapshot is garbage.
	_, err = c.containers.Create(ctx, &containersapi.CreateContainerRequest{Container: &containersapi.Container{
		ID: id, Image: imageName, Snapshotter: snapshotter, SnapshotKey: id,
		Runtime: &containersapi.Container_Runtime{Name: runtimeName},
		Spec:    &anypb.Any{TypeUrl: specType, Value: encoded},
	}})
	if err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	mounts, err := c.snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{
		Snapshotter: snapshotter, Key: id, Parent: c.e.image.chainID,
	})
	if err != nil {
		return fmt.Errorf("prepare snapshot: %w", err)
	}
	if _, err := c.tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: id, Rootfs: mounts.Mounts}); err != nil {
		return fmt.Errorf("create task: %w", err)
	}
	if _, err := c.tasks.Start(ctx, &tasksapi.StartRequest{ContainerID: id}); err != nil {
		return fmt.Errorf("start task: %w", err)
	}
	exit, err := c.tasks.Wait(ctx, &tasksapi.WaitRequest{ContainerID: id})
	if err != nil || exit.ExitStatus != 0 {
		return fmt.Errorf("wait for task: status %d: %w", exit.GetExitStatus(), err)
	}
	if _, err := c.tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id}); err != nil {
		return fmt.Errorf("delete task: %w", err)
	}
	if _, err := c.containers.Delete(ctx, &containersapi.DeleteContainerRequest{ID: id}); err != nil {
		return fmt.Errorf("delete container: %w", err)
	}
	_, err = c.snapshots.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: snapshotter, Key: id})
	if err != nil && status.Code(err) != codes.NotFound { // it is garbage since its record was deleted
		return fmt.Errorf("remove snapshot: %w", err)
	}
	return nil
}
