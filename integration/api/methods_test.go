package api

import (
	"context"
	"errors"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/containerd/containerd/api/services/containers/v1"
	_ "github.com/containerd/containerd/api/services/content/v1"
	_ "github.com/containerd/containerd/api/services/diff/v1"
	_ "github.com/containerd/containerd/api/services/events/v1"
	_ "github.com/containerd/containerd/api/services/images/v1"
	_ "github.com/containerd/containerd/api/services/introspection/v1"
	_ "github.com/containerd/containerd/api/services/leases/v1"
	_ "github.com/containerd/containerd/api/services/mounts/v1"
	_ "github.com/containerd/containerd/api/services/namespaces/v1"
	_ "github.com/containerd/containerd/api/services/sandbox/v1"
	_ "github.com/containerd/containerd/api/services/snapshots/v1"
	_ "github.com/containerd/containerd/api/services/streaming/v1"
	_ "github.com/containerd/containerd/api/services/tasks/v1"
	_ "github.com/containerd/containerd/api/services/transfer/v1"
	_ "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	_ "github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	"github.com/cleatproject/cleat/proto/rpc"
)

// served is the prefix of the services of containerd's API module, with the version at the end of the package, such
// as containerd.services.tasks.v1.
const served = "containerd.services."

// oneTransport lists the services that the published interface has on one transport only.
var oneTransport = map[string]string{"containerd.services.events.ttrpc.v1.Events": "ttrpc"}

// TestEveryMethodIsServed calls every method of every service of the API module with an empty request. Every outcome
// except Unimplemented is accepted: unknown methods return that. docs/compatibility.md has a row for each service.
func TestEveryMethodIsServed(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	client, err := rpc.Dial(t.Context(), d.Address+".ttrpc")
	harness.Must(t, err)
	defer client.Close()
	ttrpcCtx := ttrpc.WithMetadata(t.Context(), ttrpc.MD{"containerd-namespace-ttrpc": {"default"}})
	docs, err := os.ReadFile("../../docs/compatibility.md")
	harness.Must(t, err)

	services := publishedServices()
	if len(services) < 17 {
		t.Fatalf("only %d services found: %v", len(services), services)
	}
	methods := 0
	for _, s := range services {
		row := strings.TrimPrefix(string(s.FullName().Parent()), served)
		if !regexp.MustCompile("(?m)^\\|.*`" + regexp.QuoteMeta(row) + "`.*\\|$").Match(docs) {
			t.Errorf("no row for %s in docs/compatibility.md", row)
		}
		for i := range s.Methods().Len() {
			m := s.Methods().Get(i)
			methods++
			for transport, call := range map[string]func() error{
				"gRPC":  func() error { return callGRPC(ctx, conn, m) },
				"ttrpc": func() error { return callTTRPC(ttrpcCtx, client, m) },
			} {
				if only := oneTransport[string(s.FullName())]; only != "" && only != transport {
					continue
				}
				err := call()
				if status.Code(err) == codes.Unimplemented {
					t.Errorf("%s over %s: %v", m.FullName(), transport, err)
				}
			}
		}
	}
	if methods < 80 {
		t.Errorf("only %d methods found", methods)
	}
	d.Cleat("version") // the daemon still runs
}

// publishedServices returns the services in the API module's definitions, by name.
func publishedServices() []protoreflect.ServiceDescriptor {
	var found []protoreflect.ServiceDescriptor
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			if strings.HasPrefix(string(f.Package()), served) {
				found = append(found, f.Services().Get(i))
			}
		}
		return true
	})
	slices.SortFunc(found, func(a, b protoreflect.ServiceDescriptor) int {
		return strings.Compare(string(a.FullName()), string(b.FullName()))
	})
	return found
}

// listens is how long to wait for a message of a stream. A stream of an unknown method ends at once.
const listens = 2 * time.Second

func patience(m protoreflect.MethodDescriptor) time.Duration {
	if streams(m) {
		return listens
	}
	return harness.Limit
}

func streams(m protoreflect.MethodDescriptor) bool {
	return m.IsStreamingClient() || m.IsStreamingServer()
}

func callGRPC(ctx context.Context, conn *grpc.ClientConn, m protoreflect.MethodDescriptor) error {
	req, resp := dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
	path := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	ctx, cancel := context.WithTimeout(ctx, patience(m))
	defer cancel()
	if !streams(m) {
		return conn.Invoke(ctx, path, req, resp)
	}
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: m.IsStreamingServer(), ClientStreams: m.IsStreamingClient()}, path)
	if err != nil {
		return err
	}
	if err := s.SendMsg(req); err != nil && !errors.Is(err, io.EOF) { // the error is received below
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	return s.RecvMsg(resp)
}

func callTTRPC(ctx context.Context, client *ttrpc.Client, m protoreflect.MethodDescriptor) error {
	req, resp := dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
	service, method := string(m.Parent().FullName()), string(m.Name())
	ctx, cancel := context.WithTimeout(ctx, patience(m))
	defer cancel()
	if !streams(m) {
		return client.Call(ctx, service, method, req, resp)
	}
	desc := &ttrpc.StreamDesc{StreamingServer: m.IsStreamingServer(), StreamingClient: m.IsStreamingClient()}
	if !m.IsStreamingClient() { // the request was sent when the stream was opened
		s, err := client.NewStream(ctx, desc, service, method, req)
		if err != nil {
			return err
		}
		return s.RecvMsg(resp)
	}
	s, err := client.NewStream(ctx, desc, service, method, nil)
	if err != nil {
		return err
	}
	if err := s.SendMsg(req); err != nil {
		return err
	}
	return s.RecvMsg(resp)
}
