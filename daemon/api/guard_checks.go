package api

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/api/wire"
	"github.com/cleatproject/cleat/daemon/policy"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// ownExtensions begins the keys of extensions in which the daemon keeps what it acts by.
const ownExtensions = "cleat."

func createContainer(ctx context.Context, g guard, p *policy.Policy, req any) error {
	return on(ctx, g, p, req, func(ctx context.Context, g guard, p *policy.Policy, r *containersapi.CreateContainerRequest) error {
		for key := range r.GetContainer().GetExtensions() {
			if strings.HasPrefix(key, ownExtensions) {
				return p.Refuse("container.extensions", "%.100q", key)
			}
		}
		return checkContainer(ctx, g, p, r.GetContainer())
	})
}

func updateContainer(ctx context.Context, g guard, p *policy.Policy, req any) error {
	return on(ctx, g, p, req, func(ctx context.Context, g guard, p *policy.Policy, r *containersapi.UpdateContainerRequest) error {
		ns, err := access.NamespaceOf(ctx)
		if err != nil {
			return err
		}
		// A client sends back what it has read; what is new in it is refused.
		stored, err := storedContainer(ctx, g, ns, r.GetContainer().GetID())
		if err != nil {
			return err
		}
		for key, value := range r.GetContainer().GetExtensions() {
			if strings.HasPrefix(key, ownExtensions) && !bytes.Equal(value.GetValue(), stored.Extensions[key].Value) {
				return p.Refuse("container.extensions", "%.100q", key)
			}
		}
		return checkContainer(ctx, g, p, r.GetContainer())
	})
}

// checkContainer checks a container as a client sends it, and makes its spec canonical.
func checkContainer(ctx context.Context, g guard, p *policy.Policy, c *containersapi.Container) error {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return err
	}
	if c.GetSandbox() != "" {
		return p.Refuse("container.sandbox", "%.100q", c.GetSandbox())
	}
	if err := cmp.Or(p.Labels(c.GetLabels()), p.Runtime(c.GetRuntime().GetName()), anyOptions(p, c.GetRuntime().GetOptions())); err != nil {
		return err
	}
	if s := c.GetSpec(); s != nil {
		s.Value, err = p.Spec(s.GetValue(), g.specOptions(ns, true))
	}
	return err
}

func anyOptions(p *policy.Policy, a *anypb.Any) error {
	return p.Options(string(a.MessageName()), a.GetValue())
}

// specOptions are those for a namespace. fill adds the default seccomp profile.
func (g guard) specOptions(ns string, fill bool) policy.SpecOptions {
	return policy.SpecOptions{Cgroups: []string{"/" + ns, g.cgroups + "/" + ns}, Fill: fill}
}

func storedContainer(ctx context.Context, g guard, ns, id string) (c metadata.Container, err error) {
	err = g.db.View(ctx, func(tx *metadata.Tx) (err error) {
		c, err = tx.Containers(ns).Get(id)
		return err
	})
	return c, err
}

// checkStored checks a container on record, which another user may have made: one with more rights than the policy
// allows is neither started nor entered by its user.
func checkStored(ctx context.Context, g guard, p *policy.Policy, id string) (metadata.Container, string, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return metadata.Container{}, "", err
	}
	c, err := storedContainer(ctx, g, ns, id)
	if err != nil {
		return c, ns, err
	}
	errs := []error{p.Runtime(c.Runtime.Name)}
	if o := c.Runtime.Options; o != nil {
		errs = append(errs, p.Options(strings.TrimPrefix(o.TypeURL, "type.googleapis.com/"), o.Value))
	}
	if c.SandboxID != "" {
		errs = append(errs, p.Refuse("container.sandbox", "%.100q", c.SandboxID))
	}
	if c.Spec != nil {
		_, err := p.Spec(c.Spec.Value, g.specOptions(ns, false))
		errs = append(errs, err)
	}
	return c, ns, cmp.Or(errs...)
}

func createTask(ctx context.Context, g guard, p *policy.Policy, req any) error {
	return on(ctx, g, p, req, func(ctx context.Context, g guard, p *policy.Policy, r *tasksapi.CreateTaskRequest) error {
		c, ns, err := checkStored(ctx, g, p, r.GetContainerID())
		if err != nil {
			return err
		}
		switch {
		case r.GetCheckpoint() != nil:
			return p.Refuse("checkpoint", "")
		case r.GetTaskApiAddress() != "":
			return p.Refuse("task_api_address", "%.200q", r.GetTaskApiAddress())
		case r.GetRuntimePath() != "":
			if err := p.Runtime(r.GetRuntimePath()); err != nil {
				return err
			}
		}
		if err := cmp.Or(p.Stdio(r.GetStdin(), r.GetStdout(), r.GetStderr()), anyOptions(p, r.GetOptions())); err != nil {
			return err
		}
		return g.ownRootfs(ctx, p, ns, c, wire.FromMounts(r.GetRootfs()))
	})
}

// ownRootfs checks that the mounts of a root file system are those of the container's snapshot.
func (g guard) ownRootfs(ctx context.Context, p *policy.Policy, ns string, c metadata.Container, rootfs []mount.Mount) error {
	if len(rootfs) == 0 {
		return nil
	}
	if c.SnapshotKey == "" {
		return p.Refuse("rootfs", "the container has no snapshot")
	}
	own, err := g.snapshots.Mounts(ctx, ns, c.Snapshotter, c.SnapshotKey)
	if err != nil {
		return err
	}
	same := slices.EqualFunc(own, rootfs, func(a, b mount.Mount) bool {
		return a.Type == b.Type && a.Source == b.Source && a.Target == b.Target && slices.Equal(a.Options, b.Options)
	})
	if !same {
		return p.Refuse("rootfs", "not the mounts of the container's snapshot")
	}
	return nil
}

func execProcess(ctx context.Context, g guard, p *policy.Policy, req any) error {
	return on(ctx, g, p, req, func(ctx context.Context, g guard, p *policy.Policy, r *tasksapi.ExecProcessRequest) error {
		if _, _, err := checkStored(ctx, g, p, r.GetContainerID()); err != nil {
			return err
		}
		if err := p.Stdio(r.GetStdin(), r.GetStdout(), r.GetStderr()); err != nil {
			return err
		}
		s := r.GetSpec()
		if s == nil {
			return nil // the shim refuses it
		}
		var err error
		s.Value, err = p.Process(s.GetValue())
		return err
	})
}

func updateTask(ctx context.Context, g guard, p *policy.Policy, req any) error {
	return on(ctx, g, p, req, func(_ context.Context, _ guard, p *policy.Policy, r *tasksapi.UpdateTaskRequest) error {
		if len(r.GetAnnotations()) > 0 {
			return p.Refuse("annotations", "")
		}
		res := r.GetResources()
		if res == nil {
			return nil
		}
		var err error
		res.Value, err = p.ResourcesOf(res.GetValue())
		return err
	})
}

func runContainer(ctx context.Context, g guard, p *policy.Policy, req any) error {
	return on(ctx, g, p, req, func(ctx context.Context, g guard, p *policy.Policy, r *cleatapi.RunRequest) error {
		ns, err := access.NamespaceOf(ctx)
		if err != nil {
			return err
		}
		errs := []error{p.Runtime(r.Runtime), p.Labels(r.Labels), p.Stdio(r.Stdin, r.Stdout, r.Stderr)}
		if o := r.Options; o != nil {
			errs = append(errs, p.Options(strings.TrimPrefix(o.TypeUrl, "type.googleapis.com/"), o.Value))
		}
		if r.Rootfs != "" {
			errs = append(errs, p.HostDirectory(r.Rootfs))
		}
		spec, err := p.Spec(r.Spec, g.specOptions(ns, false))
		if err := cmp.Or(append(errs, err)...); err != nil {
			return err
		}
		r.Spec = spec
		return nil
	})
}

// labelled checks a request whose labels are those of the object.
func labelled(ctx context.Context, g guard, p *policy.Policy, req any) error {
	return on(ctx, g, p, req, func(_ context.Context, _ guard, p *policy.Policy, r interface{ GetLabels() map[string]string }) error {
		return p.Labels(r.GetLabels())
	})
}

func snapshotLabels(ctx context.Context, g guard, p *policy.Policy, req any) error {
	return on(ctx, g, p, req, func(_ context.Context, _ guard, p *policy.Policy, r *snapshotsapi.UpdateSnapshotRequest) error {
		return p.Labels(r.GetInfo().GetLabels())
	})
}

func namespaceLabels(ctx context.Context, g guard, p *policy.Policy, req any) error {
	type namespaced interface {
		GetNamespace() *namespacesapi.Namespace
	}
	return on(ctx, g, p, req, func(_ context.Context, _ guard, p *policy.Policy, r namespaced) error {
		return p.Labels(r.GetNamespace().GetLabels())
	})
}

func imageLabels(ctx context.Context, g guard, p *policy.Policy, req any) error {
	return on(ctx, g, p, req, func(_ context.Context, _ guard, p *policy.Policy, r interface{ GetImage() *imagesapi.Image }) error {
		return p.Labels(r.GetImage().GetLabels())
	})
}

// pluginInfo refuses options: they name a program that the daemon would run.
func pluginInfo(ctx context.Context, g guard, p *policy.Policy, req any) error {
	return on(ctx, g, p, req, func(_ context.Context, _ guard, p *policy.Policy, r *introspectionapi.PluginInfoRequest) error {
		if r.GetOptions() != nil {
			return p.Refuse("options", "")
		}
		return nil
	})
}

// transferEnds checks both ends. An archive by its path is a FIFO of the user's own, which the daemon checks once it
// has opened it (daemon/api/transfer/own_ends.go).
func transferEnds(ctx context.Context, g guard, p *policy.Policy, req any) error {
	return on(ctx, g, p, req, func(_ context.Context, _ guard, p *policy.Policy, r *transferapi.TransferRequest) error {
		for _, a := range []*anypb.Any{r.GetSource(), r.GetDestination()} {
			if a.MessageName() != "containerd.types.transfer.OCIRegistry" {
				continue
			}
			var reg transfertypes.OCIRegistry
			if err := a.UnmarshalTo(&reg); err != nil {
				return p.Refuse("registry", "%v", err)
			}
			if dir := reg.GetResolver().GetHostDir(); dir != "" {
				return p.Refuse("registry.resolver.host_dir", "%.200q", dir)
			}
		}
		return nil
	})
}
