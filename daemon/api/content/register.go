package content

import (
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"

	"github.com/cleatproject/cleat/daemon/service/blobs"
	"github.com/cleatproject/cleat/metadata"
)

// RegisterGRPC registers the service content.
func RegisterGRPC(srv *grpc.Server, db *metadata.DB, store *blobs.Store) {
	contentapi.RegisterContentServer(srv, contentGRPC{contentService: contentService{db, store}})
}

// RegisterTTRPC is RegisterGRPC for ttrpc.
func RegisterTTRPC(srv *ttrpc.Server, db *metadata.DB, store *blobs.Store) {
	contentapi.RegisterTTRPCContentService(srv, contentTTRPC{contentService{db, store}})
}
