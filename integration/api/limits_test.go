package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// TestMessages_SizeLimit sends and requests more than the limit of a message: 16 MiB.
func TestMessages_SizeLimit(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	containers := containersapi.NewContainersClient(conn)
	create := func(id string, size int) error {
		_, err := containers.Create(ctx, &containersapi.CreateContainerRequest{Container: &containersapi.Container{
			ID: id, Spec: fixture.APISpec(t, fixture.BusyboxSpec(t, "true")), Runtime: &containersapi.Container_Runtime{Name: "io.containerd.cleat.v2"},
			Extensions: map[string]*anypb.Any{"big": {TypeUrl: "test/big", Value: bytes.Repeat([]byte{1}, size)}},
		}}, grpc.MaxCallSendMsgSize(64<<20), grpc.MaxCallRecvMsgSize(64<<20))
		return err
	}
	harness.Must(t, create("a", 15<<20))
	harness.Must(t, create("b", 15<<20))
	if err := create("c", 17<<20); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("17 MiB at once: %v", err)
	}
	big := grpc.MaxCallRecvMsgSize(64 << 20)
	if _, err := containers.List(ctx, &containersapi.ListContainersRequest{}, big); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a list of 30 MiB: %v", err)
	}
	stream, err := containers.ListStream(ctx, &containersapi.ListContainersRequest{}, big)
	harness.Must(t, err)
	var ids []string
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		harness.Must(t, err)
		ids = append(ids, m.Container.ID)
	}
	if len(ids) != 2 {
		t.Errorf("the stream of the list has %q", ids)
	}
	for _, id := range ids {
		_, err := containers.Delete(ctx, &containersapi.DeleteContainerRequest{ID: id})
		harness.Must(t, err)
	}
}

// TestReflection_IsOff calls the service that lists the others.
func TestReflection_IsOff(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	for _, version := range []string{"v1", "v1alpha"} {
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
			"/grpc.reflection."+version+".ServerReflection/ServerReflectionInfo")
		harness.Must(t, err)
		if err := stream.RecvMsg(&emptypb.Empty{}); status.Code(err) != codes.Unimplemented {
			t.Errorf("reflection %s: %v", version, err)
		}
	}
}

// TestConnection_PingsOnly_IsKept keeps a connection without calls, as a waiting client does: pings are answered, and
// a flood of them ends the connection.
func TestConnection_PingsOnly_IsKept(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	conn, err := net.Dial("unix", d.Address)
	harness.Must(t, err)
	defer conn.Close()
	harness.Must(t, conn.SetDeadline(time.Now().Add(harness.Limit)))
	_, err = io.WriteString(conn, http2.ClientPreface)
	harness.Must(t, err)
	framer := http2.NewFramer(conn, conn)
	harness.Must(t, framer.WriteSettings())
	sent, answered := 1, 0
	harness.Must(t, framer.WritePing(false, [8]byte{1}))
	for {
		frame, err := framer.ReadFrame()
		harness.Must(t, err)
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				harness.Must(t, framer.WriteSettingsAck())
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				harness.Must(t, framer.WritePing(true, f.Data))
				continue
			}
			answered++
			if sent++; sent > 100 {
				t.Fatal("a flood of 100 pings does not end the connection")
			}
			err := framer.WritePing(false, [8]byte{byte(sent)})
			if err != nil && !errors.Is(err, syscall.EPIPE) { // it may be closed; the reason is still to be read
				t.Fatal(err)
			}
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeEnhanceYourCalm || answered == 0 {
				t.Errorf("closed with %s after %d responses", f.ErrCode, answered)
			}
			return
		}
	}
}

// TestDeadline_OCIRuntimeStuck_LeavesNothing blocks the OCI runtime in each verb. The client leaves by its deadline
// or by cancellation. The daemon still serves other calls, and nothing is left.
func TestDeadline_OCIRuntimeStuck_LeavesNothing(t *testing.T) {
	dir := t.TempDir()
	reached, release := filepath.Join(dir, "reached"), filepath.Join(dir, "release")
	harness.OCIWrapper(t, fmt.Sprintf(`if [ -e %[1]s.$verb ]; then : > %[1]s; while ! [ -e %[2]s ]; do sleep 0.05; done; fi`, reached, release))
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	containers, tasks := containersapi.NewContainersClient(conn), tasksapi.NewTasksClient(conn)
	create := func(ctx context.Context, id string) error {
		_, err := tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: id, Rootfs: fixture.Rootfs(d)})
		return err
	}
	for _, how := range []string{"deadline", "leaves"} {
		_, err := containers.Create(ctx, &containersapi.CreateContainerRequest{Container: &containersapi.Container{
			ID: how, Spec: fixture.APISpec(t, fixture.BusyboxSpec(t, "sleep", "1000")), Runtime: &containersapi.Container_Runtime{Name: "io.containerd.cleat.v2"},
		}})
		harness.Must(t, err)
		block(t, reached, release, "create")
		if how == "deadline" {
			passDeadline(d, harness.Exists(reached), func(after time.Duration) error {
				limited, cancel := context.WithTimeout(ctx, after)
				defer cancel()
				return create(limited, how)
			})
		} else {
			limited, cancel := context.WithCancel(ctx)
			got := make(chan error, 1)
			go func() { got <- create(limited, how) }()
			d.Eventually("the OCI runtime is blocked", harness.Exists(reached))
			cancel()
			if err := <-got; status.Code(err) != codes.Canceled {
				t.Errorf("%s: %v", how, err)
			}
		}
		_, err = versionapi.NewVersionClient(conn).Version(ctx, &emptypb.Empty{})
		harness.Must(t, err)
		unblock(t, reached, release, "create")
		d.Eventually("the task can be created again", func() error { return create(ctx, how) })
		fixture.StartTask(ctx, d, tasks, how)

		waiting, done := context.WithTimeout(ctx, 100*time.Millisecond)
		if _, err := tasks.Wait(waiting, &tasksapi.WaitRequest{ContainerID: how}); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("wait with a deadline: %v", err)
		}
		done()
		d.Cleat("rm", "--force", how)
	}
}

// passDeadline makes a call with increasing deadlines, until one passes after the call has reached a point.
func passDeadline(d *harness.Daemon, reached func() error, call func(after time.Duration) error) {
	d.T.Helper()
	after := 500 * time.Millisecond
	d.Eventually("the deadline passes in the OCI runtime", func() error {
		err := call(after)
		if code := status.Code(err); code == codes.AlreadyExists {
			return err // the remains of the last call are being deleted
		} else if code != codes.DeadlineExceeded {
			d.T.Fatalf("a deadline of %s: %v", after, err)
		}
		after *= 2
		return reached()
	})
}

// block stops the OCI runtime at a verb, and unblock releases it.
func block(t *testing.T, reached, release, verb string) {
	t.Helper()
	for _, f := range []string{reached, release} {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	harness.Must(t, os.WriteFile(reached+"."+verb, nil, 0o600))
}

func unblock(t *testing.T, reached, release, verb string) {
	t.Helper()
	harness.Must(t, os.Remove(reached+"."+verb))
	harness.Must(t, os.WriteFile(release, nil, 0o600))
}
