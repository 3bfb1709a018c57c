package lifecycle

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	mountsapi "github.com/containerd/containerd/api/services/mounts/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	sandboxapi "github.com/containerd/containerd/api/services/sandbox/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	apitypes "github.com/containerd/containerd/api/types"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/cleatproject/cleat/client/spec"
	"github.com/cleatproject/cleat/integration/harness"
	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/runcopts"
)

// attempt is a request that would give its user root on the host.
type attempt struct {
	what            string
	service, method string
	req, resp       proto.Message
	// refused is the beginning of the refusal.
	refused string
}

const (
	tasksService      = "containerd.services.tasks.v1.Tasks"
	containersService = "containerd.services.containers.v1.Containers"
)

// specOf returns the spec of an ordinary container with its JSON modified by change.
func specOf(t *testing.T, change func(map[string]any)) *anypb.Any {
	t.Helper()
	s, err := spec.Generate(spec.Image{}, spec.Options{Args: []string{"sleep", "1000"}})
	harness.Must(t, err)
	raw, err := json.Marshal(s)
	harness.Must(t, err)
	m := make(map[string]any)
	harness.Must(t, json.Unmarshal(raw, &m))
	if change != nil {
		change(m)
	}
	raw, err = json.Marshal(m)
	harness.Must(t, err)
	return &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", Value: raw}
}

func runcOptions(t *testing.T, o *runcopts.Options) *anypb.Any {
	t.Helper()
	raw, err := rpc.Marshal(o)
	harness.Must(t, err)
	return &anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: raw}
}

func containerAttempts(t *testing.T) []attempt {
	create := func(what, refused string, c *containersapi.Container) attempt {
		c.ID = "evil"
		if c.Runtime == nil {
			c.Runtime = &containersapi.Container_Runtime{Name: "io.containerd.runc.v2"}
		}
		if c.Spec == nil {
			c.Spec = specOf(t, nil)
		}
		return attempt{what, containersService, "Create", &containersapi.CreateContainerRequest{Container: c}, &containersapi.CreateContainerResponse{}, refused}
	}
	hooked := specOf(t, func(m map[string]any) {
		m["hooks"] = map[string]any{"prestart": []any{map[string]any{"path": "/bin/sh"}}}
	})
	return []attempt{
		create("a hook", "hooks.prestart", &containersapi.Container{Spec: hooked}),
		create("the host's root", "source", &containersapi.Container{Spec: specOf(t, func(m map[string]any) {
			m["root"] = map[string]any{"path": "/"}
		})}),
		create("annotations", "annotations", &containersapi.Container{Spec: specOf(t, func(m map[string]any) {
			m["annotations"] = map[string]any{"org.criu.config": "/tmp/x"}
		})}),
		create("a runtime by path", "runtime", &containersapi.Container{Runtime: &containersapi.Container_Runtime{Name: "/tmp/evil"}}),
		create("an OCI runtime by path", "options.binary_name", &containersapi.Container{Runtime: &containersapi.Container_Runtime{
			Name: "io.containerd.runc.v2", Options: runcOptions(t, &runcopts.Options{BinaryName: "/tmp/evil"}),
		}}),
		create("a logger at restart", "labels", &containersapi.Container{Labels: map[string]string{"containerd.io/restart.loguri": "binary:///bin/sh"}}),
		create("the daemon's own record", "container.extensions", &containersapi.Container{
			Extensions: map[string]*anypb.Any{"cleat.v1.RunRecord": {Value: []byte(`{"logPath":"/etc/shadow"}`)}},
		}),
		create("a sandbox", "container.sandbox", &containersapi.Container{Sandbox: "x"}),
		{
			"an update of the spec", containersService, "Update",
			&containersapi.UpdateContainerRequest{Container: &containersapi.Container{ID: "good", Spec: hooked}},
			&containersapi.UpdateContainerResponse{}, "hooks.prestart",
		},
	}
}

func taskAttempts(t *testing.T, own string) []attempt {
	create := func(what, refused string, r *tasksapi.CreateTaskRequest) attempt {
		r.ContainerID = "good"
		return attempt{what, tasksService, "Create", r, &tasksapi.CreateTaskResponse{}, refused}
	}
	run := func(what, refused string, r *tasksapi.ExecProcessRequest) attempt {
		r.ContainerID, r.ExecID = "good", "x"
		return attempt{what, tasksService, "Exec", r, &emptypb.Empty{}, refused}
	}
	process := &anypb.Any{Value: []byte(`{"args":["sh"],"cwd":"/","capabilities":{"effective":["CAP_SYS_ADMIN"]}}`)}
	return []attempt{
		create("the host's files as root", "rootfs", &tasksapi.CreateTaskRequest{
			Rootfs: []*apitypes.Mount{{Type: "bind", Source: "/", Options: []string{"rbind"}}},
		}),
		create("stdin of another", "stdin", &tasksapi.CreateTaskRequest{Stdin: "/etc/shadow"}),
		create("a log file", "stdout", &tasksapi.CreateTaskRequest{Stdout: "file:///root/x"}),
		create("a logger", "stderr", &tasksapi.CreateTaskRequest{Stderr: "binary:///bin/sh"}),
		create("a file of its own", "stdout", &tasksapi.CreateTaskRequest{Stdout: filepath.Join(own, "file")}),
		create("a checkpoint", "checkpoint", &tasksapi.CreateTaskRequest{Checkpoint: &apitypes.Descriptor{Digest: "sha256:x"}}),
		create("a shim of its own", "task_api_address", &tasksapi.CreateTaskRequest{TaskApiAddress: "unix:///tmp/x"}),
		create("a runtime by path", "runtime", &tasksapi.CreateTaskRequest{RuntimePath: "/tmp/evil"}),
		create("options", "options.root", &tasksapi.CreateTaskRequest{Options: runcOptions(t, &runcopts.Options{Root: "/x"})}),
		{"a task in root's container", tasksService, "Create", &tasksapi.CreateTaskRequest{ContainerID: "roots"}, &tasksapi.CreateTaskResponse{}, "process.capabilities"},
		{"a process in root's container", tasksService, "Exec", &tasksapi.ExecProcessRequest{ContainerID: "roots", ExecID: "x"}, &emptypb.Empty{}, "process.capabilities"},
		run("capabilities", "process.capabilities.effective", &tasksapi.ExecProcessRequest{Spec: process}),
		run("a log of an exec", "stdout", &tasksapi.ExecProcessRequest{Stdout: "binary:///bin/sh"}),
		run("stdin of an exec", "stdin", &tasksapi.ExecProcessRequest{Stdin: "/root/x"}),
		run("stderr of an exec", "stderr", &tasksapi.ExecProcessRequest{Stderr: "file:///root/x"}),
		{"devices", tasksService, "Update", &tasksapi.UpdateTaskRequest{
			ContainerID: "good", Resources: &anypb.Any{Value: []byte(`{"devices":[{"allow":true,"access":"rwm"}]}`)},
		}, &emptypb.Empty{}, "linux.resources.devices"},
		{"another cgroup", tasksService, "Update", &tasksapi.UpdateTaskRequest{
			ContainerID: "good", Resources: &anypb.Any{Value: []byte(`{"unified":{"cgroup.procs":"1"}}`)},
		}, &emptypb.Empty{}, "linux.resources.unified"},
		{"annotations of an update", tasksService, "Update", &tasksapi.UpdateTaskRequest{
			ContainerID: "good", Annotations: map[string]string{"a": "b"},
		}, &emptypb.Empty{}, "annotations"},
		{"a checkpoint to a path", tasksService, "Checkpoint", &tasksapi.CheckpointTaskRequest{ContainerID: "good"}, &tasksapi.CheckpointTaskResponse{}, "/" + tasksService},
	}
}

func otherAttempts(t *testing.T) []attempt {
	host := []*apitypes.Mount{{Type: "bind", Source: "/etc", Options: []string{"rbind"}}}
	toAny := func(m proto.Message) *anypb.Any {
		a, err := anypb.New(m)
		harness.Must(t, err)
		a.TypeUrl = strings.TrimPrefix(a.TypeUrl, "type.googleapis.com/")
		return a
	}
	archive := func(path string) *anypb.Any {
		raw, err := rpc.Marshal(&cleatapi.ArchiveFile{Path: path})
		harness.Must(t, err)
		return &anypb.Any{TypeUrl: cleatapi.ArchiveFileType, Value: raw}
	}
	const transfers, diffs = "containerd.services.transfer.v1.Transfer", "containerd.services.diff.v1.Diff"
	const mounts, sandboxes = "containerd.services.mounts.v1.Mounts", "containerd.services.sandbox.v1.Controller"
	return []attempt{
		{"apply to a host's directory", diffs, "Apply", &diffapi.ApplyRequest{Mounts: host}, &diffapi.ApplyResponse{}, "/" + diffs},
		{"diff of a host's directory", diffs, "Diff", &diffapi.DiffRequest{Left: host, Right: host}, &diffapi.DiffResponse{}, "/" + diffs},
		{"mounts", mounts, "Activate", &mountsapi.ActivateRequest{Name: "x", Mounts: host}, &mountsapi.ActivateResponse{}, "/" + mounts},
		{"a sandbox", sandboxes, "Create", &sandboxapi.ControllerCreateRequest{SandboxID: "x", Rootfs: host}, &sandboxapi.ControllerCreateResponse{}, "/" + sandboxes},
		{"events", "containerd.services.events.v1.Events", "Publish", &eventsapi.PublishRequest{Topic: "/tasks/exit"}, &emptypb.Empty{}, "/containerd.services.events"},
		{"forwarded events", "containerd.services.events.v1.Events", "Forward", &eventsapi.ForwardRequest{}, &emptypb.Empty{}, "/containerd.services.events"},
		{"the description of a shim", "containerd.services.introspection.v1.Introspection", "PluginInfo", &introspectionapi.PluginInfoRequest{
			Type: "io.containerd.runtime.v2", ID: "task", Options: &anypb.Any{},
		}, &introspectionapi.PluginInfoResponse{}, "options"},
		{"a default runtime", "containerd.services.namespaces.v1.Namespaces", "Update", &namespacesapi.UpdateNamespaceRequest{
			Namespace: &namespacesapi.Namespace{Name: policySpace, Labels: map[string]string{"containerd.io/defaults/runtime": "/tmp/evil"}},
		}, &namespacesapi.UpdateNamespaceResponse{}, "labels"},
		{"labels of a snapshot", "containerd.services.snapshots.v1.Snapshots", "Prepare", &snapshotsapi.PrepareSnapshotRequest{
			Snapshotter: "overlayfs", Key: "x", Labels: map[string]string{"cleat.io/mount": "/etc"},
		}, &snapshotsapi.PrepareSnapshotResponse{}, "labels"},
		{"a clean-up", "containerd.services.snapshots.v1.Snapshots", "Cleanup", &snapshotsapi.CleanupRequest{}, &emptypb.Empty{}, "/containerd.services.snapshots"},
		{"a configuration of registries", transfers, "Transfer", &transferapi.TransferRequest{
			Source:      toAny(&transfertypes.OCIRegistry{Reference: "127.0.0.1:1/a:b", Resolver: &transfertypes.RegistryResolver{HostDir: "/root"}}),
			Destination: toAny(&transfertypes.ImageStore{Name: "x"}),
		}, &emptypb.Empty{}, "registry.resolver.host_dir"},
		{"an archive of the host", transfers, "Transfer", &transferapi.TransferRequest{
			Source: archive("/etc/shadow"), Destination: toAny(&transfertypes.ImageStore{Name: "x"}),
		}, &emptypb.Empty{}, "open archive /etc/shadow: not a FIFO"},
		{"an archive that does not exist", transfers, "Transfer", &transferapi.TransferRequest{
			Source: archive("/root/no/such"), Destination: toAny(&transfertypes.ImageStore{Name: "x"}),
		}, &emptypb.Empty{}, "open archive /root/no/such: not a FIFO"},
		{"an export over a file", transfers, "Transfer", &transferapi.TransferRequest{
			Source: toAny(&transfertypes.ImageStore{Name: "docker.io/library/busybox:latest"}), Destination: archive("/etc/hostname"),
		}, &emptypb.Empty{}, "open archive /etc/hostname: not a FIFO"},
	}
}
