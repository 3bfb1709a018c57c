package cleatapi

// Names of the native services on the wire.
const (
	ContainersService = "cleat.v1.Containers"
	ImagesService     = "cleat.v1.Images"
	EventsService     = "cleat.v1.Events"
	ShimsService      = "cleat.v1.Shims"
	GCService         = "cleat.v1.GC"
)
