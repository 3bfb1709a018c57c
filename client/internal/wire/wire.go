// Package wire holds the messages of the containerd services that the client calls, generated
// without reflection from services.proto and events.proto, and the names of those services.
package wire

// Names of the services and of the metadata key that carries the namespace.
const (
	TasksService      = "containerd.services.tasks.v1.Tasks"
	ContainersService = "containerd.services.containers.v1.Containers"
	NamespacesService = "containerd.services.namespaces.v1.Namespaces"
	VersionService    = "containerd.services.version.v1.Version"
	PluginsService    = "containerd.services.introspection.v1.Introspection"
	TransferService   = "containerd.services.transfer.v1.Transfer"
	StreamingService  = "containerd.services.streaming.v1.Streaming"

	NamespaceKey = "containerd-namespace-ttrpc"
)

// Names of the messages on streams, by which they are identified in an Any.
const (
	StreamInitType   = "containerd.services.streaming.v1.StreamInit"
	ProgressType     = "containerd.types.transfer.Progress"
	AuthRequestType  = "containerd.types.transfer.AuthRequest"
	AuthResponseType = "containerd.types.transfer.AuthResponse"
)
