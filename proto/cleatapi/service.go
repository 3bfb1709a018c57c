// Package cleatapi holds the messages of the daemon's native services.
package cleatapi

// Names of the native services on the wire.
const (
	ContainersService = "cleat.v1.Containers"
	ImagesService     = "cleat.v1.Images"
	EventsService     = "cleat.v1.Events"
	ShimsService      = "cleat.v1.Shims"
	GCService         = "cleat.v1.GC"
)

// Names of the ends of transfers, by which they are identified in an Any.
const (
	RegistryType    = "cleat.v1.Registry"
	ImageStoreType  = "cleat.v1.ImageStore"
	ArchiveFileType = "cleat.v1.ArchiveFile"
)

// NameAnnotation is the published annotation with the name of a pushed image, on the
// descriptor of its last event.
const NameAnnotation = "io.containerd.image.name"
