package containers

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/daemon/service/snapshots"
	"github.com/cleatproject/cleat/internal/filters"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/runtime"
)

// StatusWord names a task's state for people.
func StatusWord(i runtime.Info) string {
	return strings.ToLower(i.Status.String())
}

// List returns containers and their tasks, from records and from what the runtime knows; no shim
// is asked. Filters are as metadata takes them, and "status".
func (s *Service) List(ctx context.Context, namespace string, all bool, filter []string) ([]*cleatapi.Container, error) {
	match, err := filters.ParseAll(filter...)
	if err != nil {
		return nil, err
	}
	var list []metadata.Container
	err = s.db.View(ctx, func(tx *metadata.Tx) (err error) {
		if _, err := tx.Namespaces().Get(namespace); err != nil {
			return err
		}
		list, err = tx.Containers(namespace).List()
		return err
	})
	if err != nil {
		return nil, err
	}
	tasks := make(map[string]runtime.Info)
	for _, t := range s.tasks.List(namespace) {
		tasks[t.ID()] = t.Info()
	}
	out := make([]*cleatapi.Container, 0, len(list))
	for _, c := range list {
		v, err := summary(namespace, c, tasks)
		if err != nil {
			return nil, err
		}
		if !all && v.Status != "running" && v.Status != "paused" && v.Status != "unknown" {
			continue
		}
		if match.Match(containerFields{v}) {
			out = append(out, v)
		}
	}
	return out, s.addStorageSizes(ctx, out)
}

// summary joins what is known of a container.
func summary(namespace string, c metadata.Container, tasks map[string]runtime.Info) (*cleatapi.Container, error) {
	v := &cleatapi.Container{
		Id: c.ID, Namespace: namespace, Image: c.Image, Status: "created",
		CreatedAt: types.FromTime(c.CreatedAt), Labels: c.Labels, Runtime: c.Runtime.Name,
		Snapshotter: c.Snapshotter, SnapshotKey: c.SnapshotKey,
	}
	r, err := record(c)
	if err != nil {
		return nil, err
	}
	if r != nil {
		v.LogPath, v.Command, v.Terminal = r.LogPath, r.Command, r.Terminal
		v.Stdin, v.Stdout, v.Stderr = r.Stdin, r.Stdout, r.Stderr
		v.StartedAt, v.StorageSize = types.FromTime(r.StartedAt), r.StorageSize
		if r.Exit != nil {
			v.Status, v.ExitStatus, v.FinishedAt = "stopped", r.Exit.Status, types.FromTime(r.Exit.At)
			v.OomKilled = r.Exit.OOM
		}
	} else if c.Spec != nil {
		v.Command = specArgs(c.Spec.Value)
	}
	if i, ok := tasks[c.ID]; ok {
		addTask(v, i)
	}
	return v, nil
}

// addTask adds what the runtime knows of a container's task.
func addTask(v *cleatapi.Container, i runtime.Info) {
	v.Status, v.OomKilled = StatusWord(i), i.OOMKilled
	if !i.StartedAt.IsZero() {
		v.StartedAt = types.FromTime(i.StartedAt)
	}
	switch i.Status {
	case types.Status_STOPPED:
		v.ExitStatus, v.FinishedAt = i.Exit.Status, types.FromTime(i.Exit.At)
	case types.Status_UNKNOWN:
	default:
		v.Pid = i.Pid
	}
	if i.Stdout != "" || i.Stdin != "" || i.Stderr != "" {
		v.Stdin, v.Stdout, v.Stderr, v.Terminal = i.Stdin, i.Stdout, i.Stderr, i.Terminal
	}
}

// containerFields are what List's filters see.
type containerFields struct{ c *cleatapi.Container }

// Field implements filters.Adaptor.
func (f containerFields) Field(path []string) (string, bool) {
	if len(path) == 0 {
		return "", false
	}
	switch path[0] {
	case "id":
		return f.c.Id, true
	case "image":
		return f.c.Image, f.c.Image != ""
	case "status":
		return f.c.Status, true
	case "runtime", "runtime.name":
		return f.c.Runtime, true
	case "labels":
		v, ok := f.c.Labels[strings.Join(path[1:], ".")]
		return v, ok
	}
	return "", false
}

// Shims lists the shims of a namespace, or of all for "".
func (s *Service) Shims(namespace string) []*cleatapi.Shim {
	var out []*cleatapi.Shim
	for _, t := range s.tasks.List(namespace) {
		i := t.Info()
		if i.Link == runtime.Dead {
			continue
		}
		out = append(out, &cleatapi.Shim{
			Id: i.ID, Namespace: i.Namespace, Pid: i.ShimPid, Runtime: cmp.Or(i.Runtime, runtime.NativeRuntime),
			Version: i.ShimVersion, Socket: strings.TrimPrefix(i.ShimAddress, "unix://"), State: string(i.Link),
		})
	}
	return out
}

// addStorageSizes gives containers the limit of their storage as it is now. Only those are looked up that
// were made with one.
func (s *Service) addStorageSizes(ctx context.Context, list []*cleatapi.Container) error {
	if !slices.ContainsFunc(list, func(v *cleatapi.Container) bool { return v.StorageSize != 0 }) {
		return nil
	}
	return s.db.View(ctx, func(tx *metadata.Tx) error {
		for _, v := range list {
			if v.StorageSize == 0 {
				continue
			}
			rec, err := tx.Snapshots(v.Namespace, v.Snapshotter).Stat(v.SnapshotKey)
			if err == nil {
				v.StorageSize, err = snapshots.SizeLimit(rec)
			}
			if undo.Ignore(err, errdefs.ErrNotFound) != nil { // it may be on its way out
				return err
			}
		}
		return nil
	})
}
