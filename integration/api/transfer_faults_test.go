package api

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/services/introspection/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

func TestTransfer_ClientLeavesDuringRequest_Ends(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{User: harness.Alice})
	d := harness.Start(t)
	m := fixture.Movers(d, "default")["gRPC"]
	id, s := stream(m, "auth")
	ctx, cancel := context.WithCancel(m.Ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- m.Transfer(ctx, &transferapi.TransferRequest{
			Source:      named(&transfertypes.OCIRegistry{Reference: r.Host + "/a/b:1", Resolver: &transfertypes.RegistryResolver{AuthStream: id}}),
			Destination: named(&transfertypes.ImageStore{Name: "b:1"}),
		})
	}()
	_, err := s.Recv()
	harness.Must(t, err)
	cancel()
	if err := <-ended; status.Code(err) != codes.Canceled {
		t.Errorf("left: %v", err)
	}
	if a, err := s.Recv(); err == nil {
		t.Errorf("the stream receives %v", a)
	}
	// If the stream ends without an answer, the transfer reports that.
	id, s = stream(m, "auth")
	harness.Must(t, s.CloseSend())
	_, err = move(m.Ctx, m, &transfertypes.OCIRegistry{Reference: r.Host + "/a/b:1", Resolver: &transfertypes.RegistryResolver{AuthStream: id}}, &transfertypes.ImageStore{Name: "b:1"})
	if status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "ask the client for a credential") {
		t.Errorf("without an answer: %v", err)
	}
	d.NoRemains("transfers with requests")
}

func TestTransfer_RequestsCredentials(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{User: harness.Alice})
	r.Skopeo("oci-archive:"+harness.ToolArchives(t)["skopeo's OCI archive"], "docker://"+r.Host+"/some/box:1")
	ref := r.Host + "/some/box:1"
	d := harness.Start(t)
	user, pass, _ := strings.Cut(harness.Alice, ":")
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(harness.Alice))
	for transport, m := range fixture.Movers(d, "default") {
		t.Run(transport, func(t *testing.T) {
			m.T = t
			for what, c := range map[string]struct {
				answer *transfertypes.AuthResponse
				code   codes.Code
			}{
				"a user":           {&transfertypes.AuthResponse{AuthType: transfertypes.AuthType_CREDENTIALS, Username: user, Secret: pass}, codes.OK},
				"a header":         {&transfertypes.AuthResponse{AuthType: transfertypes.AuthType_HEADER, Secret: basic}, codes.OK},
				"a wrong user":     {&transfertypes.AuthResponse{AuthType: transfertypes.AuthType_CREDENTIALS, Username: user, Secret: "wrong"}, codes.Unauthenticated},
				"a wrong header":   {&transfertypes.AuthResponse{AuthType: transfertypes.AuthType_HEADER, Secret: "Basic eDp5"}, codes.Unauthenticated},
				"an unknown token": {&transfertypes.AuthResponse{AuthType: transfertypes.AuthType_REFRESH, Secret: "t"}, codes.Unauthenticated},
				"no credentials":   {&transfertypes.AuthResponse{}, codes.Unauthenticated},
				"an unknown type":  {&transfertypes.AuthResponse{AuthType: 17}, codes.Unauthenticated},
			} {
				id, asked := answer(m, c.answer)
				_, err := move(m.Ctx, m, &transfertypes.OCIRegistry{Reference: ref, Resolver: &transfertypes.RegistryResolver{AuthStream: id}},
					&transfertypes.ImageStore{Name: "box:1"})
				if status.Code(err) != c.code {
					t.Errorf("%s: %v", what, err)
				}
				requests := asked()
				if len(requests) != 1 || requests[0].GetHost() != r.Host || requests[0].GetReference() != ref ||
					len(requests[0].GetWwwauthenticate()) != 1 || !strings.HasPrefix(requests[0].GetWwwauthenticate()[0], "Basic realm=") {
					t.Errorf("%s: requests %v", what, requests)
				}
				if c.code == codes.OK {
					d.Cleat("image", "rm", "box:1")
				}
			}
			_, err := move(m.Ctx, m, &transfertypes.OCIRegistry{Reference: ref}, &transfertypes.ImageStore{Name: "box:1"})
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("without a stream: %v", err)
			}
			// A header that was sent at the start needs no request.
			must(m, &transfertypes.OCIRegistry{Reference: ref, Resolver: &transfertypes.RegistryResolver{Headers: map[string]string{"authorization": basic}}},
				&transfertypes.ImageStore{Name: "box:1"})
			d.Cleat("image", "rm", "box:1")
			d.NoRemains(transport)
		})
	}
	if strings.Contains(d.Log(), pass) || strings.Contains(d.Log(), basic) {
		t.Error("a secret is in the daemon's log")
	}
}

func TestTransfer_UsesConfigurationOfClient(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{TLS: true})
	r.Image("some/box", "1", harness.Amd64, harness.LayersOf(t, 1, 1<<10)...)
	d := harness.Start(t)
	m := fixture.Movers(d, "default")["gRPC"]
	pull := func(res *transfertypes.RegistryResolver) error {
		_, err := move(m.Ctx, m, &transfertypes.OCIRegistry{Reference: r.Host + "/some/box:1", Resolver: res}, &transfertypes.ImageStore{Name: "box:1"})
		return err
	}
	if err := pull(nil); status.Code(err) != codes.Unavailable {
		t.Errorf("unknown authority: %v", err)
	}
	if err := pull(&transfertypes.RegistryResolver{HostDir: "certs.d"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("relative host_dir: %v", err)
	}
	if err := pull(&transfertypes.RegistryResolver{DefaultScheme: "ftp"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("scheme: %v", err)
	}
	if err := pull(&transfertypes.RegistryResolver{DefaultScheme: "http"}); err == nil {
		t.Error("plain HTTP request to a TLS server")
	}
	var header string
	r.Interfere(func(_ http.ResponseWriter, req *http.Request) bool {
		header = req.Header.Get("X-Mine")
		return false
	})
	harness.Must(t, pull(&transfertypes.RegistryResolver{HostDir: r.Trust(), Headers: map[string]string{"x-mine": "1"}, HttpDebug: transfertypes.HTTPDebug_BOTH}))
	if header != "1" {
		t.Errorf("header %q", header)
	}
	if log := d.Log(); !strings.Contains(log, "X-Mine: 1") || !strings.Contains(log, "first byte of the answer") {
		t.Errorf("the requests are not in the daemon's log:\n%s", log)
	}
	d.Cleat("image", "rm", "box:1")
	d.NoRemains("pulls with a configuration")
}

func TestTransfer_InvalidRequest_IsRefused(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	store, remote := &transfertypes.ImageStore{Name: "a:1"}, &transfertypes.OCIRegistry{Reference: "127.0.0.1:1/a:1"}
	for transport, m := range fixture.Movers(d, "default") {
		for what, c := range map[string]struct {
			source, destination proto.Message
			code                codes.Code
			says                string
		}{
			"a registry to a registry": {remote, remote, codes.Unimplemented, "OCIRegistry to OCIRegistry"},
			"an import to a registry":  {&transfertypes.ImageImportStream{Stream: "x"}, remote, codes.Unimplemented, "ImageImportStream"},
			"a path":                   {&transfertypes.ContainerPath{}, store, codes.Unimplemented, "ContainerPath"},
			"a store without a name":   {remote, &transfertypes.ImageStore{}, codes.InvalidArgument, "no name to store"},
			"a prefix alone":           {remote, &transfertypes.ImageStore{ExtraReferences: []*transfertypes.ImageReference{{Name: "p", IsPrefix: true}}}, codes.InvalidArgument, "no name to store"},
			"an invalid reference":     {&transfertypes.OCIRegistry{Reference: "A B"}, store, codes.InvalidArgument, "A B"},
			"a missing image":          {store, &transfertypes.ImageStore{Name: "b:1"}, codes.NotFound, "a:1"},
			"an unknown stream":        {&transfertypes.ImageImportStream{Stream: "nosuch"}, store, codes.NotFound, "nosuch"},
			"an archive of zip":        {&transfertypes.ImageImportStream{Stream: "x", MediaType: "application/zip"}, store, codes.Unimplemented, "application/zip"},
			"an unknown snapshotter": {
				remote, &transfertypes.ImageStore{Name: "a:1", Unpacks: []*transfertypes.UnpackConfiguration{{Snapshotter: "nosuch"}}},
				codes.InvalidArgument, "nosuch",
			},
		} {
			_, err := move(m.Ctx, m, c.source, c.destination)
			if status.Code(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s over %s: %v", what, transport, err)
			}
		}
		for what, req := range map[string]*transferapi.TransferRequest{
			"no source":          {Destination: named(store)},
			"no destination":     {Source: named(store)},
			"an unusable source": {Source: &unknownAny, Destination: named(store)},
		} {
			if err := m.Transfer(m.Ctx, req); status.Code(err) != codes.InvalidArgument && status.Code(err) != codes.Unimplemented {
				t.Errorf("%s over %s: %v", what, transport, err)
			}
		}
	}
	d.NoRemains("refused transfers")
}

func TestTransfer_Cancelled_KeepsContent(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	ref, layers, reached, release := r.StallImage()
	d := harness.Start(t)
	m := fixture.Movers(d, "default")["gRPC"]
	defer release()
	ctx, cancel := context.WithCancel(m.Ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := move(ctx, m, &transfertypes.OCIRegistry{Reference: ref}, &transfertypes.ImageStore{Name: "box:1"})
		ended <- err
	}()
	<-reached
	d.AwaitIngest(1<<20, len(layers)+1)
	cancel()
	if err := <-ended; status.Code(err) != codes.Canceled {
		t.Errorf("cancelled: %v", err)
	}
	d.Eventually("a lease is left for the next attempt", func() error { return d.CtrLists(1, "leases", "ls", "-q") })
	if image(d, "default", "box:1") != nil {
		t.Error("an image was recorded")
	}
	r.Interfere(nil)
	before := r.SentBytes()
	must(m, &transfertypes.OCIRegistry{Reference: ref}, &transfertypes.ImageStore{Name: "box:1"})
	if sent, want := r.SentBytes()-before, int64(len(layers[1])-1<<20); sent != want {
		t.Errorf("%d bytes were sent, missing were %d", sent, want)
	}
	harness.Must(t, d.CtrLists(0, "leases", "ls", "-q"))
	d.Cleat("image", "rm", "box:1")
	d.NoRemains("a cancelled transfer")
}

func TestIntrospection_ListsTransferAndStreaming(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	for _, filter := range []string{
		"type==io.containerd.transfer.v1,id==local,platforms~=linux/", "type==io.containerd.streaming.v1,id==manager",
		"type==io.containerd.grpc.v1,id==transfer", "type==io.containerd.grpc.v1,id==streaming",
	} {
		resp, err := introspection.NewIntrospectionClient(conn).Plugins(ctx, &introspection.PluginsRequest{Filters: []string{filter}})
		if err != nil || len(resp.Plugins) != 1 || resp.Plugins[0].InitErr != nil {
			t.Errorf("%s: %v, %v", filter, resp, err)
		}
	}
}
