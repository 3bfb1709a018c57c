package integration

import (
	"bytes"
	"context"
	"encoding/base64"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/api/services/introspection/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	apitypes "github.com/containerd/containerd/api/types"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// image returns an image's record in a namespace, nil where there is none.
func (d *Daemon) image(ns, name string) *imagesapi.Image {
	d.t.Helper()
	_, conn := d.grpc()
	ctx := metadata.AppendToOutgoingContext(d.t.Context(), "containerd-namespace", ns)
	resp, err := imagesapi.NewImagesClient(conn).Get(ctx, &imagesapi.GetImageRequest{Name: name})
	if status.Code(err) == codes.NotFound {
		return nil
	}
	must(d.t, err)
	return resp.Image
}

// has tells whether content is in the default namespace.
func (d *Daemon) has(dgst string) bool {
	d.t.Helper()
	ctx, conn := d.grpc()
	_, err := contentapi.NewContentClient(conn).Info(ctx, &contentapi.InfoRequest{Digest: dgst})
	if err != nil && status.Code(err) != codes.NotFound {
		d.t.Fatal(err)
	}
	return err == nil
}

func onLinux(arch ...string) (list []*apitypes.Platform) {
	for _, a := range arch {
		name, variant, _ := strings.Cut(a, "/")
		list = append(list, &apitypes.Platform{OS: "linux", Architecture: name, Variant: variant})
	}
	return list
}

// order returns the events of each name, a repeated one once.
func order(events []*transfertypes.Progress) map[string][]string {
	out := make(map[string][]string)
	for _, e := range events {
		kind, _, _ := strings.Cut(e.GetName(), "-sha256:")
		key := kind
		if e.GetDesc() != nil {
			key = e.GetDesc().GetDigest()
		}
		if l := out[key]; len(l) == 0 || l[len(l)-1] != e.GetEvent() {
			out[key] = append(out[key], e.GetEvent())
		}
	}
	return out
}

func TestTransferPullsByPlatformAndTellsOfIt(t *testing.T) {
	r := StartRegistry(t, RegistryOptions{})
	index := r.multiPlatform("multi/box:1", "linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x")
	ref := r.Host + "/multi/box:1"
	d := Start(t)
	for transport, m := range d.movers("default") {
		t.Run(transport, func(t *testing.T) {
			m.t = t
			events := m.must(&transfertypes.OCIRegistry{Reference: ref}, &transfertypes.ImageStore{
				Name: "mine/box:1", Labels: map[string]string{"a": "b"}, Platforms: onLinux("amd64"),
				Unpacks:         []*transfertypes.UnpackConfiguration{{Platform: onLinux("amd64")[0]}},
				ExtraReferences: []*transfertypes.ImageReference{{Name: "other/name:2"}, {Name: "by", IsPrefix: true, AddDigest: true}},
			})
			for _, name := range []string{"mine/box:1", "other/name:2", "by@" + index} {
				if img := d.image("default", name); img == nil || img.Target.Digest != index || img.Labels["a"] != "b" {
					t.Errorf("%s: %v", name, img)
				}
			}
			if d.image("default", ref) != nil {
				t.Errorf("a name was recorded that nobody gave")
			}
			if out := d.Cleat("run", "--rm", "mine/box:1", "echo", "runs"); out != "runs" {
				t.Errorf("run: %q", out)
			}
			layers := 0
			for key, list := range order(events) {
				switch {
				case key == "":
					want := []string{"Resolving from " + ref, "Pulling from " + ref, "Completed pull from " + ref}
					if !slices.Equal(list, want) {
						t.Errorf("of the whole: %q", list)
					}
				case slices.Contains(list, "extracting"):
					layers++
					if want := []string{"waiting", "downloading", "complete", "extracting", "extracted"}; !slices.Equal(list, want) {
						t.Errorf("of a layer: %q", list)
					}
				case key == index:
					if want := []string{"waiting", "downloading", "complete"}; !slices.Equal(list, want) {
						t.Errorf("of the index: %q", list)
					}
				}
			}
			if layers != 2 {
				t.Errorf("%d layers were told of to their end: %v", layers, events)
			}
			last := events[len(events)-1]
			saved := slices.ContainsFunc(events, func(p *transfertypes.Progress) bool { return p.GetEvent() == "saved" && p.GetName() == "mine/box:1" })
			if !saved || last.GetEvent() != "Completed pull from "+ref {
				t.Errorf("saved %v, the last was %v", saved, last)
			}
			for _, e := range events {
				if strings.HasPrefix(e.GetName(), "layer-") && (len(e.GetParents()) != 1 || !strings.HasPrefix(e.GetParents()[0], "manifest-")) {
					t.Errorf("a layer's parents: %v", e)
				}
			}
			for _, name := range []string{"mine/box:1", "other/name:2", "by@" + index} {
				d.Cleat("image", "rm", name)
			}
			d.nothingMade(transport)
		})
	}
}

func TestTransferChoosesManifests(t *testing.T) {
	r := StartRegistry(t, RegistryOptions{})
	r.multiPlatform("multi/box:1", "linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x")
	ref := r.Host + "/multi/box:1"
	d := Start(t)
	m := d.movers("default")["gRPC"]
	parts := func(store *transfertypes.ImageStore) (manifests, layers int) {
		t.Helper()
		store.Name = "box:1"
		seen := make(map[string]bool)
		for _, e := range m.must(&transfertypes.OCIRegistry{Reference: ref}, store) {
			if seen[e.GetName()] || e.GetDesc() == nil {
				continue
			}
			seen[e.GetName()] = true
			switch kind, _, _ := strings.Cut(e.GetName(), "-"); kind {
			case "manifest":
				manifests++
			case "layer":
				layers++
			}
		}
		d.Cleat("image", "rm", "box:1")
		return manifests, layers
	}
	// Each has a layer of its own, and one is everybody's.
	for what, c := range map[string]struct {
		store             *transfertypes.ImageStore
		manifests, layers int
	}{
		"all":                  {&transfertypes.ImageStore{}, 4, 5},
		"one":                  {&transfertypes.ImageStore{Platforms: onLinux("arm64")}, 1, 2},
		"two":                  {&transfertypes.ImageStore{Platforms: onLinux("amd64", "s390x")}, 2, 3},
		"two, one at most":     {&transfertypes.ImageStore{Platforms: onLinux("s390x", "amd64"), ManifestLimit: 1}, 1, 2},
		"what suits best":      {&transfertypes.ImageStore{Platforms: onLinux("arm/v8")}, 1, 2},
		"two at most":          {&transfertypes.ImageStore{ManifestLimit: 2}, 2, 3},
		"one, but all of text": {&transfertypes.ImageStore{Platforms: onLinux("amd64"), AllMetadata: true}, 4, 2},
	} {
		if manifests, layers := parts(c.store); manifests != c.manifests || layers != c.layers {
			t.Errorf("%s: %d manifests with %d layers, want %d with %d", what, manifests, layers, c.manifests, c.layers)
		}
	}
	_, err := m.move(m.ctx, &transfertypes.OCIRegistry{Reference: ref}, &transfertypes.ImageStore{Name: "box:1", Platforms: onLinux("riscv64")})
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "linux/s390x") {
		t.Errorf("a platform that is not there: %v", err)
	}
	d.nothingMade("pulls of parts")
}

func TestTransferPushesTagsImportsAndExports(t *testing.T) {
	r := StartRegistry(t, RegistryOptions{})
	archives := toolArchives(t)
	d := Start(t)
	for transport, m := range d.movers("default") {
		t.Run(transport, func(t *testing.T) {
			m.t = t
			bring := func(path string, how *transfertypes.ImageImportStream, store *transfertypes.ImageStore) []*transfertypes.Progress {
				t.Helper()
				data, err := os.ReadFile(path)
				must(t, err)
				id, s := m.stream("import")
				var wg sync.WaitGroup
				wg.Go(func() {
					if err := give(s, data); err != nil {
						t.Errorf("send archive: %v", err)
					}
				})
				how.Stream = id
				events := m.must(how, store)
				wg.Wait()
				return events
			}
			fetch := func(store *transfertypes.ImageStore, how *transfertypes.ImageExportStream) []byte {
				t.Helper()
				id, s := m.stream("export")
				got := make(chan []byte, 1)
				go func() {
					data, err := receive(s, 100_000)
					if err != nil {
						t.Errorf("receive archive: %v", err)
					}
					got <- data
				}()
				how.Stream = id
				m.must(store, how)
				return <-got
			}
			events := bring(archives["skopeo's OCI archive"], &transfertypes.ImageImportStream{MediaType: "application/vnd.oci.image.layout.v1+tar"},
				&transfertypes.ImageStore{Name: "first:1", Unpacks: []*transfertypes.UnpackConfiguration{{}}})
			if list := order(events); !slices.Contains(list[""], "Importing") || !slices.Contains(list["first:1"], "saved") {
				t.Errorf("progress of an import: %v", events)
			}
			first := d.image("default", "first:1").GetTarget().GetDigest()

			m.must(&transfertypes.ImageStore{Name: "first:1"}, &transfertypes.ImageStore{Name: "second:1", Labels: map[string]string{"x": "y"}})
			if img := d.image("default", "second:1"); img == nil || img.Target.Digest != first || img.Labels["x"] != "y" {
				t.Errorf("tagged: %v", img)
			}

			ref := r.Host + "/pushed/" + strings.ToLower(transport) + ":1"
			events = m.must(&transfertypes.ImageStore{Name: "second:1"}, &transfertypes.OCIRegistry{Reference: ref})
			if got := r.digest("pushed/" + strings.ToLower(transport) + ":1"); got != first {
				t.Errorf("the registry has %s, pushed was %s", got, first)
			}
			if list := order(events)[first]; !slices.Equal(list, []string{"complete"}) {
				t.Errorf("of the manifest that was pushed: %q", list)
			}

			archive := fetch(&transfertypes.ImageStore{Name: "first:1", ExtraReferences: []*transfertypes.ImageReference{{Name: "second:1"}}}, &transfertypes.ImageExportStream{})
			for _, name := range []string{"first:1", "second:1"} {
				d.Cleat("image", "rm", name)
			}
			d.nothingMade("between")
			path := t.TempDir() + "/back.tar"
			must(t, os.WriteFile(path, archive, 0o600))
			bring(path, &transfertypes.ImageImportStream{}, &transfertypes.ImageStore{Name: "back:1"})
			if img := d.image("default", "back:1"); img.GetTarget().GetDigest() != first {
				t.Errorf("back is %v, went %s", img, first)
			}
			again := fetch(&transfertypes.ImageStore{Name: "back:1"}, &transfertypes.ImageExportStream{SkipCompatibilityManifest: true})
			if bytes.Contains(again, []byte("manifest.json")) || !bytes.Contains(archive, []byte("manifest.json")) {
				t.Error("what docker load wants is there or not as it was not asked for")
			}
			d.Cleat("image", "rm", "back:1")

			// Names by prefixes, and layers that are packed.
			saved := archives["a docker save archive"]
			bring(saved, &transfertypes.ImageImportStream{}, &transfertypes.ImageStore{ExtraReferences: []*transfertypes.ImageReference{
				{Name: "example.com/box", IsPrefix: true}, {Name: "any/where", IsPrefix: true, AddDigest: true},
			}})
			plain := d.image("default", "example.com/box:1").GetTarget().GetDigest()
			if plain == "" || d.image("default", "any/where@"+plain) == nil {
				t.Errorf("names by prefix: %q, %s", plain, d.Cleat("image", "ls"))
			}
			bring(saved, &transfertypes.ImageImportStream{ForceCompress: true}, &transfertypes.ImageStore{Name: "packed:1", Unpacks: []*transfertypes.UnpackConfiguration{{}}})
			if packed := d.image("default", "packed:1").GetTarget().GetDigest(); packed == plain || packed == "" {
				t.Errorf("packed is %s, plain %s", packed, plain)
			}
			if out := d.Cleat("run", "--rm", "packed:1", "echo", "runs"); out != "runs" {
				t.Errorf("run: %q", out)
			}
			for _, name := range []string{"example.com/box:1", "any/where@" + plain, "packed:1"} {
				d.Cleat("image", "rm", name)
			}
			d.nothingMade(transport)
		})
	}
}

func TestTransferAsksForCredentials(t *testing.T) {
	r := StartRegistry(t, RegistryOptions{User: alice})
	r.skopeo("oci-archive:"+toolArchives(t)["skopeo's OCI archive"], "docker://"+r.Host+"/some/box:1")
	ref := r.Host + "/some/box:1"
	d := Start(t)
	user, pass, _ := strings.Cut(alice, ":")
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(alice))
	for transport, m := range d.movers("default") {
		t.Run(transport, func(t *testing.T) {
			m.t = t
			for what, c := range map[string]struct {
				answer *transfertypes.AuthResponse
				code   codes.Code
			}{
				"a user":            {&transfertypes.AuthResponse{AuthType: transfertypes.AuthType_CREDENTIALS, Username: user, Secret: pass}, codes.OK},
				"a header":          {&transfertypes.AuthResponse{AuthType: transfertypes.AuthType_HEADER, Secret: basic}, codes.OK},
				"a wrong user":      {&transfertypes.AuthResponse{AuthType: transfertypes.AuthType_CREDENTIALS, Username: user, Secret: "wrong"}, codes.Unauthenticated},
				"a wrong header":    {&transfertypes.AuthResponse{AuthType: transfertypes.AuthType_HEADER, Secret: "Basic eDp5"}, codes.Unauthenticated},
				"a token for none":  {&transfertypes.AuthResponse{AuthType: transfertypes.AuthType_REFRESH, Secret: "t"}, codes.Unauthenticated},
				"nobody":            {&transfertypes.AuthResponse{}, codes.Unauthenticated},
				"a type of its own": {&transfertypes.AuthResponse{AuthType: 17}, codes.Unauthenticated},
			} {
				id, asked := m.answer(c.answer)
				_, err := m.move(m.ctx, &transfertypes.OCIRegistry{Reference: ref, Resolver: &transfertypes.RegistryResolver{AuthStream: id}},
					&transfertypes.ImageStore{Name: "box:1"})
				if status.Code(err) != c.code {
					t.Errorf("%s: %v", what, err)
				}
				requests := asked()
				if len(requests) != 1 || requests[0].GetHost() != r.Host || requests[0].GetReference() != ref ||
					len(requests[0].GetWwwauthenticate()) != 1 || !strings.HasPrefix(requests[0].GetWwwauthenticate()[0], "Basic realm=") {
					t.Errorf("%s: asked %v", what, requests)
				}
				if c.code == codes.OK {
					d.Cleat("image", "rm", "box:1")
				}
			}
			_, err := m.move(m.ctx, &transfertypes.OCIRegistry{Reference: ref}, &transfertypes.ImageStore{Name: "box:1"})
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("without a stream: %v", err)
			}
			// A header that goes along from the start needs no question.
			m.must(&transfertypes.OCIRegistry{Reference: ref, Resolver: &transfertypes.RegistryResolver{Headers: map[string]string{"authorization": basic}}},
				&transfertypes.ImageStore{Name: "box:1"})
			d.Cleat("image", "rm", "box:1")
			d.nothingMade(transport)
		})
	}
	if strings.Contains(d.Log(), pass) || strings.Contains(d.Log(), basic) {
		t.Error("a secret is in the daemon's log")
	}
}

func TestTransferWithTheClientsConfiguration(t *testing.T) {
	r := StartRegistry(t, RegistryOptions{TLS: true})
	r.Image("some/box", "1", amd64, layersOf(t, 1, 1<<10)...)
	d := Start(t)
	m := d.movers("default")["gRPC"]
	pull := func(res *transfertypes.RegistryResolver) error {
		_, err := m.move(m.ctx, &transfertypes.OCIRegistry{Reference: r.Host + "/some/box:1", Resolver: res}, &transfertypes.ImageStore{Name: "box:1"})
		return err
	}
	if err := pull(nil); status.Code(err) != codes.Unavailable {
		t.Errorf("of an authority that nobody knows: %v", err)
	}
	if err := pull(&transfertypes.RegistryResolver{HostDir: "certs.d"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("of a relative host_dir: %v", err)
	}
	if err := pull(&transfertypes.RegistryResolver{DefaultScheme: "ftp"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("of a scheme: %v", err)
	}
	if err := pull(&transfertypes.RegistryResolver{DefaultScheme: "http"}); err == nil {
		t.Error("plain HTTP was spoken with a server of TLS")
	}
	var header string
	r.Interfere(func(_ http.ResponseWriter, req *http.Request) bool {
		header = req.Header.Get("X-Mine")
		return false
	})
	must(t, pull(&transfertypes.RegistryResolver{HostDir: r.trust(), Headers: map[string]string{"x-mine": "1"}, HttpDebug: transfertypes.HTTPDebug_BOTH}))
	if header != "1" {
		t.Errorf("the header came as %q", header)
	}
	if !strings.Contains(d.Log(), "http_debug") {
		t.Error("nothing was said of what is not done")
	}
	d.Cleat("image", "rm", "box:1")
	d.nothingMade("pulls with a configuration")
}

func TestTransfersThatAreRefused(t *testing.T) {
	d := Start(t)
	store, remote := &transfertypes.ImageStore{Name: "a:1"}, &transfertypes.OCIRegistry{Reference: "127.0.0.1:1/a:1"}
	for transport, m := range d.movers("default") {
		for what, c := range map[string]struct {
			source, destination proto.Message
			code                codes.Code
			says                string
		}{
			"a registry to a registry":  {remote, remote, codes.Unimplemented, "OCIRegistry to OCIRegistry"},
			"an import to a registry":   {&transfertypes.ImageImportStream{Stream: "x"}, remote, codes.Unimplemented, "ImageImportStream"},
			"a path":                    {&transfertypes.ContainerPath{}, store, codes.Unimplemented, "ContainerPath"},
			"a store without a name":    {remote, &transfertypes.ImageStore{}, codes.InvalidArgument, "names no image"},
			"a prefix alone":            {remote, &transfertypes.ImageStore{ExtraReferences: []*transfertypes.ImageReference{{Name: "p", IsPrefix: true}}}, codes.InvalidArgument, "names no image"},
			"a reference that is none":  {&transfertypes.OCIRegistry{Reference: "A B"}, store, codes.InvalidArgument, "A B"},
			"an image that is not here": {store, &transfertypes.ImageStore{Name: "b:1"}, codes.NotFound, "a:1"},
			"an unknown stream":         {&transfertypes.ImageImportStream{Stream: "nosuch"}, store, codes.NotFound, "nosuch"},
			"an archive of zip":         {&transfertypes.ImageImportStream{Stream: "x", MediaType: "application/zip"}, store, codes.Unimplemented, "application/zip"},
			"an unknown snapshotter": {remote, &transfertypes.ImageStore{Name: "a:1", Unpacks: []*transfertypes.UnpackConfiguration{{Snapshotter: "nosuch"}}},
				codes.InvalidArgument, "nosuch"},
		} {
			_, err := m.move(m.ctx, c.source, c.destination)
			if status.Code(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s over %s: %v", what, transport, err)
			}
		}
		for what, req := range map[string]*transferapi.TransferRequest{
			"no source":          {Destination: named(store)},
			"no destination":     {Source: named(store)},
			"a source of no use": {Source: &unknownAny, Destination: named(store)},
		} {
			if err := m.transfer(m.ctx, req); status.Code(err) != codes.InvalidArgument && status.Code(err) != codes.Unimplemented {
				t.Errorf("%s over %s: %v", what, transport, err)
			}
		}
	}
	d.nothingMade("transfers that were refused")
}

func TestTransferThatIsCancelled(t *testing.T) {
	r := StartRegistry(t, RegistryOptions{})
	layers := layersOf(t, 1, 2<<20)
	r.Image("big/box", "1", amd64, layers...)
	d := Start(t)
	m := d.movers("default")["gRPC"]
	ref := r.Host + "/big/box:1"
	reached, goOn := r.stall(layers[1], 1<<20)
	defer goOn()
	ctx, cancel := context.WithCancel(m.ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := m.move(ctx, &transfertypes.OCIRegistry{Reference: ref}, &transfertypes.ImageStore{Name: "box:1"})
		ended <- err
	}()
	<-reached
	d.awaitIngest(1 << 20)
	cancel()
	if err := <-ended; status.Code(err) != codes.Canceled {
		t.Errorf("cancelled: %v", err)
	}
	d.Eventually("the lease is gone", func() error { return d.ctrLists(0, "leases", "ls", "-q") })
	if d.image("default", "box:1") != nil {
		t.Error("an image was recorded")
	}
	r.Interfere(nil)
	before := r.Sent.Load()
	m.must(&transfertypes.OCIRegistry{Reference: ref}, &transfertypes.ImageStore{Name: "box:1"})
	if sent, want := r.Sent.Load()-before, int64(len(layers[1])-1<<20); sent != want {
		t.Errorf("%d bytes were sent, missing were %d", sent, want)
	}
	d.Cleat("image", "rm", "box:1")
	d.nothingMade("a transfer that was cancelled")
}

func TestIntrospectionListsTransferAndStreaming(t *testing.T) {
	d := Start(t)
	ctx, conn := d.grpc()
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
