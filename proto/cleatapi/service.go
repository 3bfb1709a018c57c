package cleatapi

// Names of the native services on the wire.
const (
	ContainersService = "cleat.v1.Containers"
	ImagesService     = "cleat.v1.Images"
	EventsService     = "cleat.v1.Events"
	ShimsService      = "cleat.v1.Shims"
	GCService         = "cleat.v1.GC"
)

// Names of the ends of transfers, by which an Any tells them.
const (
	RegistryType    = "cleat.v1.Registry"
	ImageStoreType  = "cleat.v1.ImageStore"
	ArchiveFileType = "cleat.v1.ArchiveFile"
)

// NameAnnotation is the annotation, as published, that has the name of what a push brought, on the
// descriptor of its last event.
const NameAnnotation = "io.containerd.image.name"
