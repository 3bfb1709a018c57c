// Package native serves cleat's own services, cleat.v1, on ttrpc; see proto/cleatapi/cleat.proto.
package native

import (
	"context"

	"github.com/containerd/ttrpc"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/service/containers"
	"github.com/cleatproject/cleat/daemon/service/gc"
	"github.com/cleatproject/cleat/daemon/service/images"
	"github.com/cleatproject/cleat/daemon/service/subscribe"
	"github.com/cleatproject/cleat/daemon/service/transfer"
	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/types"
)

// Parts are the use cases that the services call. All fields are required.
type Parts struct {
	Containers *containers.Service
	Images     *images.Store
	Transfers  *transfer.Service
	GC         *gc.Collector
	Hub        *subscribe.Hub
	Events     *events.Log
}

// native is the cleat.v1 services, on ttrpc only; see proto/cleatapi/cleat.proto.
type native struct{ Parts }

func (s native) register(srv *ttrpc.Server) {
	srv.RegisterService(cleatapi.ContainersService, &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Run":    rpc.Unary(s.run),
		"List":   rpc.Unary(s.list),
		"Wait":   rpc.Unary(s.wait),
		"Remove": rpc.Unary(s.remove),

		"ReadLog":    rpc.Unary(s.readLog),
		"LookupUser": rpc.Unary(s.lookupUser),
	}})
	srv.RegisterService(cleatapi.ImagesService, &ttrpc.ServiceDesc{
		Methods: map[string]ttrpc.Method{
			"List":    rpc.Unary(s.listImages),
			"Inspect": rpc.Unary(s.inspectImage),
			"Remove":  rpc.Unary(s.removeImage),

			"Commit":     rpc.Unary(s.commitImage),
			"Mount":      rpc.Unary(s.mountImage),
			"Unmount":    rpc.Unary(s.unmountImage),
			"ListMounts": rpc.Unary(s.listImageMounts),
			"Usage":      rpc.Unary(s.imageUsage),
			"Label":      rpc.Unary(s.labelImage),
			"Referrers":  rpc.Unary(s.referrers),
		},
		Streams: map[string]ttrpc.Stream{
			"Convert": rpc.ServerStream(s.convertImage),
		},
	})
	srv.RegisterService(cleatapi.EventsService, &ttrpc.ServiceDesc{
		Streams: map[string]ttrpc.Stream{"Subscribe": rpc.ServerStream(s.subscribe)},
	})
	srv.RegisterService(cleatapi.GCService, &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"Collect": rpc.Unary(s.collect),
		"Why":     rpc.Unary(s.why),
		"Stats":   rpc.Unary(s.stats),
	}})
	srv.RegisterService(cleatapi.ShimsService, &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"List": rpc.Unary(s.listShims),
	}})
}

func (s native) run(ctx context.Context, req *cleatapi.RunRequest) (*cleatapi.RunResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	r, err := s.Containers.Run(ctx, ns, containers.RunRequest{
		ID: req.Id, Image: req.Image, Rootfs: req.Rootfs, Platform: req.Platform, Spec: req.Spec, User: req.User,
		Snapshotter: req.Snapshotter, Runtime: req.Runtime, Options: req.Options, Labels: req.Labels,
		Stdin: req.Stdin, Stdout: req.Stdout, Stderr: req.Stderr, Terminal: req.Terminal,
		Log: req.Log, AutoRemove: req.AutoRemove, StorageSize: req.StorageSize, Token: req.Token,
	})
	if err != nil {
		return nil, err
	}
	return &cleatapi.RunResponse{
		Id: r.ID, Pid: r.Pid, StartedAt: types.FromTime(r.StartedAt), Cursor: r.Cursor, LogPath: r.LogPath,
	}, nil
}

func (s native) list(ctx context.Context, req *cleatapi.ListRequest) (*cleatapi.ListResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	list, err := s.Containers.List(ctx, ns, req.All, req.Filters)
	return &cleatapi.ListResponse{Containers: list}, err
}

func (s native) wait(ctx context.Context, req *cleatapi.WaitRequest) (*cleatapi.WaitResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	e, err := s.Containers.Wait(ctx, ns, req.Id)
	return &cleatapi.WaitResponse{ExitStatus: e.Status, ExitedAt: types.FromTime(e.At)}, err
}

func (s native) remove(ctx context.Context, req *cleatapi.RemoveRequest) (*cleatapi.RemoveResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	return &cleatapi.RemoveResponse{}, s.Containers.Remove(ctx, ns, req.Id, req.Force, req.Token)
}

func (s native) readLog(ctx context.Context, req *cleatapi.ReadLogRequest) (*cleatapi.ReadLogResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	data, offset, size, err := s.Containers.ReadLog(ctx, ns, req.Id, containers.LogRange{
		Offset: req.Offset, Length: req.Length, OwnOnly: access.HasPolicy(ctx),
	})
	return &cleatapi.ReadLogResponse{Data: data, Offset: offset, Size_: size}, err
}

func (s native) lookupUser(ctx context.Context, req *cleatapi.LookupUserRequest) (*cleatapi.LookupUserResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	u, err := s.Containers.LookupUser(ctx, ns, req.Id, req.User)
	return &cleatapi.LookupUserResponse{Uid: u.UID, Gid: u.GID, AdditionalGids: u.Groups}, err
}

func (s native) listImages(ctx context.Context, req *cleatapi.ListImagesRequest) (*cleatapi.ListImagesResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	list, err := s.Images.List(ctx, ns, req.Filters)
	return &cleatapi.ListImagesResponse{Images: list}, err
}

func (s native) inspectImage(ctx context.Context, req *cleatapi.InspectImageRequest) (*cleatapi.InspectImageResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	return s.Images.Inspect(ctx, ns, req.Name, req.Platform)
}

func (s native) removeImage(ctx context.Context, req *cleatapi.RemoveImageRequest) (*cleatapi.RemoveImageResponse, error) {
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	return &cleatapi.RemoveImageResponse{}, s.Images.Remove(ctx, ns, req.Name)
}

func (s native) subscribe(ctx context.Context, req *cleatapi.SubscribeRequest, send func(*cleatapi.Event) error) error {
	sub := subscribe.Subscription{Within: access.Within(ctx), Cursor: req.Cursor, FromStart: req.FromStart, Filters: req.Filters}
	if req.Cursor == 0 && !req.FromStart {
		sub.Cursor = s.Events.Cursor()
	}
	if !req.AllNamespaces {
		ns, err := access.CheckNamespace(ctx, req.Namespace)
		if err != nil {
			return err
		}
		sub.Namespace = ns
	}
	return s.Hub.Subscribe(ctx, sub, func(e events.Event) error {
		return send(&cleatapi.Event{
			Cursor: e.Cursor, Timestamp: types.FromTime(e.Timestamp), Namespace: e.Namespace, Topic: e.Topic,
			Event: &types.Any{TypeUrl: e.TypeURL, Value: e.Value},
		})
	})
}

func (s native) listShims(ctx context.Context, req *cleatapi.ListShimsRequest) (*cleatapi.ListShimsResponse, error) {
	if req.AllNamespaces {
		if err := access.AllowAll(ctx, "list the shims of all namespaces"); err != nil {
			return nil, err
		}
		return &cleatapi.ListShimsResponse{Shims: s.Containers.Shims("")}, nil
	}
	ns, err := access.NamespaceOf(ctx)
	if err != nil {
		return nil, err
	}
	return &cleatapi.ListShimsResponse{Shims: s.Containers.Shims(ns)}, nil
}
