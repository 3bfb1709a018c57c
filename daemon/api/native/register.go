package native

import (
	"github.com/containerd/ttrpc"

	"github.com/cleatproject/cleat/daemon/service"
)

// Register registers the cleat.v1 services, which are on ttrpc only.
func Register(srv *ttrpc.Server, svc *service.Service) {
	native{svc}.register(srv)
}
