package api

import (
	"log/slog"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	mountsapi "github.com/containerd/containerd/api/services/mounts/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	sandboxapi "github.com/containerd/containerd/api/services/sandbox/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	streamingapi "github.com/containerd/containerd/api/services/streaming/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	ttrpceventsapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthapi "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/cleatproject/cleat/daemon/service"
	"github.com/cleatproject/cleat/daemon/streams"
)

// maxMessage is the size of a message that gRPC takes and gives, the same as the peer's.
const maxMessage = 16 << 20

// pingsFrom is how often a client may see whether the daemon is there.
const pingsFrom = 5 * time.Second

// NewGRPC returns a gRPC server with every containerd service. open has the streams that clients open, on
// whichever transport. It serves unix sockets only: who is at
// their other end is known, and access says what they may do.
func NewGRPC(svc *service.Service, open *streams.Manager, id Identity, access Access, log *slog.Logger) *grpc.Server {
	srv := grpc.NewServer(
		grpc.Creds(peerCredentials{access: access, log: log}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingsFrom, PermitWithoutStream: true}),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.UnaryInterceptor(newGuard(svc).unary),
		grpc.StreamInterceptor(newGuard(svc).stream),
	)
	containersapi.RegisterContainersServer(srv, containersGRPC{containers: containers{svc}})
	contentapi.RegisterContentServer(srv, contentGRPC{contentService: contentService{svc}})
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
	streamingapi.RegisterStreamingServer(srv, streamingGRPC{streaming: streaming{open}})
	tasksapi.RegisterTasksServer(srv, tasks{svc: svc})
	transferapi.RegisterTransferServer(srv, transfers{svc: svc, streams: open})
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
	contentapi.RegisterTTRPCContentService(srv, contentTTRPC{contentService{svc}})
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
	streamingapi.RegisterTTRPCStreamingService(srv, streamingTTRPC{streaming{open}})
	tasksapi.RegisterTTRPCTasksService(srv, tasks{svc: svc})
	transferapi.RegisterTTRPCTransferService(srv, transfers{svc: svc, streams: open})
	versionapi.RegisterTTRPCVersionService(srv, version{id: id})
	native{svc}.register(srv)
	gcService{svc}.register(srv)
	return srv, nil
}
