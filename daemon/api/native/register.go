package native

import (
	"github.com/containerd/ttrpc"
)

// Register registers the cleat.v1 services, which are on ttrpc only.
func Register(srv *ttrpc.Server, p Parts) {
	native{p}.register(srv)
}
