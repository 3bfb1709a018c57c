package api

import (
	"log/slog"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	mountsapi "github.com/containerd/containerd/api/services/mounts/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	sandboxapi "github.com/containerd/containerd/api/services/sandbox/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	ttrpceventsapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthapi "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/cleatproject/cleat/daemon/api/access"
	"github.com/cleatproject/cleat/daemon/api/content"
	"github.com/cleatproject/cleat/daemon/api/native"
	"github.com/cleatproject/cleat/daemon/api/transfer"
	"github.com/cleatproject/cleat/daemon/api/wire"
	"github.com/cleatproject/cleat/daemon/service"
	"github.com/cleatproject/cleat/daemon/streams"
)

// pingsFrom is how often a client may see whether the daemon is there.
const pingsFrom = 5 * time.Second

// NewGRPC returns a gRPC server with every containerd service. open has the streams that clients open, on
// whichever transport. It serves unix sockets only: who is at
// their other end is known, and access says what they may do.
func NewGRPC(svc *service.Service, open *streams.Manager, id Identity, users access.Users, log *slog.Logger) *grpc.Server {
	srv := grpc.NewServer(
		grpc.Creds(access.Credentials{Users: users, Log: log}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingsFrom, PermitWithoutStream: true}),
		grpc.MaxRecvMsgSize(wire.MaxMessage), grpc.MaxSendMsgSize(wire.MaxMessage),
		grpc.UnaryInterceptor(newGuard(svc).unary),
		grpc.StreamInterceptor(newGuard(svc).stream),
	)
	containersapi.RegisterContainersServer(srv, containersGRPC{containers: containers{svc}})
	content.RegisterGRPC(srv, svc)
	diffapi.RegisterDiffServer(srv, diff{svc: svc})
	eventsapi.RegisterEventsServer(srv, eventsGRPC{eventsService: eventsService{svc}})
	imagesapi.RegisterImagesServer(srv, images{svc: svc})
	introspectionapi.RegisterIntrospectionServer(srv, introspection{svc: svc, id: id})
	leasesapi.RegisterLeasesServer(srv, leases{svc: svc})
	mountsapi.RegisterMountsServer(srv, mountsGRPC{mounts: mounts{svc}})
	namespacesapi.RegisterNamespacesServer(srv, namespaces{svc: svc})
	sandboxapi.RegisterStoreServer(srv, sandboxes{svc: svc})
	sandboxapi.RegisterControllerServer(srv, sandboxController{svc: svc})
	snapshotsapi.RegisterSnapshotsServer(srv, snapshotsGRPC{snapshots: snapshots{svc}})
	transfer.RegisterGRPC(srv, svc, open)
	tasksapi.RegisterTasksServer(srv, tasks{svc: svc})
	versionapi.RegisterVersionServer(srv, version{id: id})
	healthapi.RegisterHealthServer(srv, health.NewServer())
	return srv
}

// NewTTRPC returns a ttrpc server with every containerd service, the one that shims forward events
// to, and the natives. The context that it serves a connection with is to come from WithPeer.
func NewTTRPC(svc *service.Service, open *streams.Manager, id Identity) (*ttrpc.Server, error) {
	srv, err := ttrpc.NewServer(ttrpc.WithUnaryServerInterceptor(newGuard(svc).ttrpcUnary))
	if err != nil {
		return nil, err
	}
	containersapi.RegisterTTRPCContainersService(srv, containersTTRPC{containers{svc}})
	content.RegisterTTRPC(srv, svc)
	diffapi.RegisterTTRPCDiffService(srv, diff{svc: svc})
	eventsapi.RegisterTTRPCEventsService(srv, eventsTTRPC{eventsService{svc}})
	ttrpceventsapi.RegisterTTRPCEventsService(srv, shimEvents{eventsService{svc}})
	imagesapi.RegisterTTRPCImagesService(srv, images{svc: svc})
	introspectionapi.RegisterTTRPCIntrospectionService(srv, introspection{svc: svc, id: id})
	leasesapi.RegisterTTRPCLeasesService(srv, leases{svc: svc})
	mountsapi.RegisterTTRPCMountsService(srv, mountsTTRPC{mounts{svc}})
	namespacesapi.RegisterTTRPCNamespacesService(srv, namespaces{svc: svc})
	sandboxapi.RegisterTTRPCStoreService(srv, sandboxes{svc: svc})
	sandboxapi.RegisterTTRPCControllerService(srv, sandboxController{svc: svc})
	snapshotsapi.RegisterTTRPCSnapshotsService(srv, snapshotsTTRPC{snapshots{svc}})
	transfer.RegisterTTRPC(srv, svc, open)
	tasksapi.RegisterTTRPCTasksService(srv, tasks{svc: svc})
	versionapi.RegisterTTRPCVersionService(srv, version{id: id})
	native.Register(srv, svc)
	return srv, nil
}
