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
	transferservice "github.com/cleatproject/cleat/daemon/api/transfer"
	"github.com/cleatproject/cleat/daemon/api/wire"
	"github.com/cleatproject/cleat/daemon/service/activations"
	"github.com/cleatproject/cleat/daemon/service/blobs"
	"github.com/cleatproject/cleat/daemon/service/containers"
	"github.com/cleatproject/cleat/daemon/service/gc"
	"github.com/cleatproject/cleat/daemon/service/images"
	"github.com/cleatproject/cleat/daemon/service/namespaces"
	"github.com/cleatproject/cleat/daemon/service/snapshots"
	"github.com/cleatproject/cleat/daemon/service/subscribe"
	"github.com/cleatproject/cleat/daemon/service/transfer"
	"github.com/cleatproject/cleat/daemon/streams"
	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/runtime"
)

// pingsFrom is how often a client may see whether the daemon is there.
const pingsFrom = 5 * time.Second

// Parts are the stores and the use cases that the API serves. All fields are required.
type Parts struct {
	DB          *metadata.DB
	Events      *events.Log
	Tasks       *runtime.Manager
	Blobs       *blobs.Store
	Snapshots   *snapshots.Store
	Namespaces  *namespaces.Store
	Activations *activations.Store
	Images      *images.Store
	Transfers   *transfer.Service
	Containers  *containers.Service
	Sandboxes   *containers.Sandboxes
	GC          *gc.Collector
	Hub         *subscribe.Hub
	// Streams has the streams that clients open, on either transport.
	Streams  *streams.Manager
	Identity Identity
	// CgroupParent is the cgroup below which containers are put that choose none.
	CgroupParent string
	Log          *slog.Logger
}

// services are those that both transports serve.
type services struct {
	containers containersService
	diff       diffService
	events     eventsService
	images     imagesService
	plugins    introspection
	leases     leasesService
	mounts     mountsService
	namespaces namespacesService
	sandboxes  sandboxesService
	controller sandboxController
	snapshots  snapshotsService
	tasks      tasksService
	version    version
}

// services gives each service the parts that it uses.
func (p Parts) services() services {
	return services{
		containers: containersService{db: p.DB, containers: p.Containers},
		diff:       diffService{images: p.Images},
		events:     eventsService{hub: p.Hub},
		images:     imagesService{db: p.DB, images: p.Images, gc: p.GC},
		plugins:    introspection{tasks: p.Tasks, id: p.Identity},
		leases:     leasesService{db: p.DB, gc: p.GC},
		mounts:     mountsService{activations: p.Activations},
		namespaces: namespacesService{db: p.DB, namespaces: p.Namespaces},
		sandboxes:  sandboxesService{db: p.DB, sandboxes: p.Sandboxes},
		controller: sandboxController{sandboxes: p.Sandboxes},
		snapshots:  snapshotsService{db: p.DB, snapshots: p.Snapshots},
		tasks:      tasksService{tasks: p.Tasks, containers: p.Containers},
		version:    version{id: p.Identity},
	}
}

// NewGRPC returns a gRPC server with every containerd service. It serves unix sockets only, whose clients the
// kernel identifies; users has the rights of those that are limited.
func NewGRPC(p Parts, users access.Users) *grpc.Server {
	g, all := newGuard(p), p.services()
	srv := grpc.NewServer(
		grpc.Creds(access.Credentials{Users: users, Log: p.Log}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingsFrom, PermitWithoutStream: true}),
		grpc.MaxRecvMsgSize(wire.MaxMessage), grpc.MaxSendMsgSize(wire.MaxMessage),
		grpc.UnaryInterceptor(g.unary),
		grpc.StreamInterceptor(g.stream),
	)
	containersapi.RegisterContainersServer(srv, containersGRPC{containersService: all.containers})
	content.RegisterGRPC(srv, p.DB, p.Blobs)
	diffapi.RegisterDiffServer(srv, all.diff)
	eventsapi.RegisterEventsServer(srv, eventsGRPC{eventsService: all.events})
	imagesapi.RegisterImagesServer(srv, all.images)
	introspectionapi.RegisterIntrospectionServer(srv, all.plugins)
	leasesapi.RegisterLeasesServer(srv, all.leases)
	mountsapi.RegisterMountsServer(srv, mountsGRPC{mountsService: all.mounts})
	namespacesapi.RegisterNamespacesServer(srv, all.namespaces)
	sandboxapi.RegisterStoreServer(srv, all.sandboxes)
	sandboxapi.RegisterControllerServer(srv, all.controller)
	snapshotsapi.RegisterSnapshotsServer(srv, snapshotsGRPC{snapshotsService: all.snapshots})
	transferservice.RegisterGRPC(srv, p.Transfers, p.Streams, p.Log)
	tasksapi.RegisterTasksServer(srv, all.tasks)
	versionapi.RegisterVersionServer(srv, all.version)
	healthapi.RegisterHealthServer(srv, health.NewServer())
	return srv
}

// NewTTRPC returns a ttrpc server with every containerd service, the one that shims forward events
// to, and the natives. The context that it serves a connection with is to come from WithPeer.
func NewTTRPC(p Parts) (*ttrpc.Server, error) {
	srv, err := ttrpc.NewServer(ttrpc.WithUnaryServerInterceptor(newGuard(p).ttrpcUnary))
	if err != nil {
		return nil, err
	}
	all := p.services()
	containersapi.RegisterTTRPCContainersService(srv, containersTTRPC{all.containers})
	content.RegisterTTRPC(srv, p.DB, p.Blobs)
	diffapi.RegisterTTRPCDiffService(srv, all.diff)
	eventsapi.RegisterTTRPCEventsService(srv, eventsTTRPC{all.events})
	ttrpceventsapi.RegisterTTRPCEventsService(srv, shimEvents{all.events})
	imagesapi.RegisterTTRPCImagesService(srv, all.images)
	introspectionapi.RegisterTTRPCIntrospectionService(srv, all.plugins)
	leasesapi.RegisterTTRPCLeasesService(srv, all.leases)
	mountsapi.RegisterTTRPCMountsService(srv, mountsTTRPC{all.mounts})
	namespacesapi.RegisterTTRPCNamespacesService(srv, all.namespaces)
	sandboxapi.RegisterTTRPCStoreService(srv, all.sandboxes)
	sandboxapi.RegisterTTRPCControllerService(srv, all.controller)
	snapshotsapi.RegisterTTRPCSnapshotsService(srv, snapshotsTTRPC{all.snapshots})
	transferservice.RegisterTTRPC(srv, p.Transfers, p.Streams, p.Log)
	tasksapi.RegisterTTRPCTasksService(srv, all.tasks)
	versionapi.RegisterTTRPCVersionService(srv, all.version)
	native.Register(srv, native.Parts{
		Containers: p.Containers, Images: p.Images, Transfers: p.Transfers, GC: p.GC, Hub: p.Hub, Events: p.Events,
	})
	return srv, nil
}
