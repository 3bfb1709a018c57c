package transfer

import (
	streamingapi "github.com/containerd/containerd/api/services/streaming/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"

	"github.com/cleatproject/cleat/daemon/service"
	"github.com/cleatproject/cleat/daemon/streams"
)

// RegisterGRPC registers the services transfer and streaming. open has the streams that
// clients open, on either transport.
func RegisterGRPC(srv *grpc.Server, svc *service.Service, open *streams.Manager) {
	streamingapi.RegisterStreamingServer(srv, streamingGRPC{streaming: streaming{open}})
	transferapi.RegisterTransferServer(srv, transfers{svc: svc, streams: open})
}

// RegisterTTRPC is registerTransferGRPC for ttrpc.
func RegisterTTRPC(srv *ttrpc.Server, svc *service.Service, open *streams.Manager) {
	streamingapi.RegisterTTRPCStreamingService(srv, streamingTTRPC{streaming{open}})
	transferapi.RegisterTTRPCTransferService(srv, transfers{svc: svc, streams: open})
}
