package content

import (
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"

	"github.com/cleatproject/cleat/daemon/service"
)

// RegisterGRPC registers the service content.
func RegisterGRPC(srv *grpc.Server, svc *service.Service) {
	contentapi.RegisterContentServer(srv, contentGRPC{contentService: contentService{svc}})
}

// RegisterTTRPC is registerContentGRPC for ttrpc.
func RegisterTTRPC(srv *ttrpc.Server, svc *service.Service) {
	contentapi.RegisterTTRPCContentService(srv, contentTTRPC{contentService{svc}})
}
