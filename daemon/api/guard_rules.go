package api

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/daemon/policy"
)

// rules returns what each method of the API asks of users with a policy; a method that is missing is refused to
// them. docs/security.md explains the refusals.
func rules() map[string]rule {
	table := make(map[string]rule)
	add := func(service string, r rule, methods ...string) {
		for _, m := range methods {
			table["/"+service+"/"+m] = r
		}
	}
	executionRules(add)
	imageRules(add)
	nativeRules(add)

	const leases, namespaces = "containerd.services.leases.v1.Leases", "containerd.services.namespaces.v1.Namespaces"
	add(leases, allow, "AddResource", "Delete", "DeleteResource", "List", "ListResources")
	add(leases, labelled, "Create")
	add(namespaces, allow, "Delete", "Get", "List")
	add(namespaces, namespaceLabels, "Create", "Update")
	// Events that anyone could publish would be mistaken for those of shims.
	add("containerd.services.events.v1.Events", deny, "Forward", "Publish")
	add("containerd.services.events.v1.Events", allow, "Subscribe")
	add("containerd.services.events.ttrpc.v1.Events", deny, "Forward")
	add("containerd.services.introspection.v1.Introspection", allow, "Plugins", "Server")
	add("containerd.services.introspection.v1.Introspection", pluginInfo, "PluginInfo")
	add("containerd.services.streaming.v1.Streaming", allow, "Stream")
	add("containerd.services.version.v1.Version", allow, "Version")
	add("grpc.health.v1.Health", allow, "Check", "List", "Watch")
	return table
}

func executionRules(add func(service string, r rule, methods ...string)) {
	const containers, tasks = "containerd.services.containers.v1.Containers", "containerd.services.tasks.v1.Tasks"
	add(containers, allow, "Get", "List", "ListStream", "Delete")
	add(containers, createContainer, "Create")
	add(containers, updateContainer, "Update")
	add(tasks, allow, "Start", "Delete", "DeleteProcess", "Get", "List", "Kill", "ResizePty", "CloseIO", "Pause", "Resume",
		"ListPids", "Metrics", "Wait")
	add(tasks, createTask, "Create")
	add(tasks, execProcess, "Exec")
	add(tasks, updateTask, "Update")
	// A checkpoint is written to a path of the host, and restored with whatever privileges it holds.
	add(tasks, deny, "Checkpoint")
	// Sandboxes name network namespaces, mounts and options of a shim of their own.
	add("containerd.services.sandbox.v1.Store", allow, "Get", "List")
	add("containerd.services.sandbox.v1.Store", deny, "Create", "Update", "Delete")
	add("containerd.services.sandbox.v1.Controller", deny, "Create", "Metrics", "Platform", "Shutdown", "Start", "Status",
		"Stop", "Update", "Wait")
}

func imageRules(add func(service string, r rule, methods ...string)) {
	const content, snapshots = "containerd.services.content.v1.Content", "containerd.services.snapshots.v1.Snapshots"
	add(content, allow, "Abort", "Delete", "Info", "List", "ListStatuses", "Read", "Status", "Update", "Write")
	// Both take mounts of any kind.
	add("containerd.services.diff.v1.Diff", deny, "Apply", "Diff")
	add("containerd.services.images.v1.Images", allow, "Delete", "Get", "List")
	add("containerd.services.images.v1.Images", imageLabels, "Create", "Update")
	add("containerd.services.mounts.v1.Mounts", allow, "Info", "List")
	add("containerd.services.mounts.v1.Mounts", deny, "Activate", "Deactivate", "Update")
	add(snapshots, allow, "List", "Mounts", "Remove", "Stat", "Usage")
	add(snapshots, labelled, "Prepare", "View", "Commit")
	add(snapshots, snapshotLabels, "Update")
	add(snapshots, deny, "Cleanup")
	add("containerd.services.transfer.v1.Transfer", transferEnds, "Transfer")
}

func nativeRules(add func(service string, r rule, methods ...string)) {
	add("cleat.v1.Containers", allow, "List", "Wait", "Remove", "ReadLog", "LookupUser")
	add("cleat.v1.Containers", runContainer, "Run")
	add("cleat.v1.Images", allow, "List", "Inspect", "Remove", "Commit", "Convert", "ListMounts", "Usage", "Label", "Referrers")
	// Mounts are made by root on the host.
	add("cleat.v1.Images", deny, "Mount", "Unmount")
	add("cleat.v1.Events", allow, "Subscribe")
	add("cleat.v1.Shims", allow, "List")
	add("cleat.v1.GC", allow, "Why", "Stats")
	add("cleat.v1.GC", deny, "Collect")
}

// allow is for methods whose requests name nothing of the host.
func allow(context.Context, guard, *policy.Policy, any) error { return nil }

// deny is for methods that a policy never allows.
func deny(context.Context, guard, *policy.Policy, any) error { return errDenied }

// on makes a rule of a function for the method's own type of request.
func on[T any](ctx context.Context, g guard, p *policy.Policy, req any, check func(context.Context, guard, *policy.Policy, T) error) error {
	r, ok := req.(T)
	if !ok {
		return fmt.Errorf("check request of type %T: %w", req, errdefs.ErrInternal)
	}
	return check(ctx, g, p, r)
}
