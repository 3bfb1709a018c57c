package transfer

import (
	"log/slog"

	streamingapi "github.com/containerd/containerd/api/services/streaming/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"

	"github.com/cleatproject/cleat/daemon/service/transfer"
	"github.com/cleatproject/cleat/daemon/streams"
)

// RegisterGRPC registers the services transfer and streaming. open has the streams that
// clients open, on either transport.
func RegisterGRPC(srv *grpc.Server, move *transfer.Service, open *streams.Manager, log *slog.Logger) {
	streamingapi.RegisterStreamingServer(srv, streamingGRPC{streaming: streaming{open}})
	transferapi.RegisterTransferServer(srv, transfers{move: move, streams: open, log: log})
}

// RegisterTTRPC is RegisterGRPC for ttrpc.
func RegisterTTRPC(srv *ttrpc.Server, move *transfer.Service, open *streams.Manager, log *slog.Logger) {
	streamingapi.RegisterTTRPCStreamingService(srv, streamingTTRPC{streaming{open}})
	transferapi.RegisterTTRPCTransferService(srv, transfers{move: move, streams: open, log: log})
}
