package api

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	apitypes "github.com/containerd/containerd/api/types"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// image returns an image's record in a namespace, nil if it does not exist.
func image(d *harness.Daemon, ns, name string) *imagesapi.Image {
	d.T.Helper()
	_, conn := fixture.GRPC(d)
	ctx := metadata.AppendToOutgoingContext(d.T.Context(), "containerd-namespace", ns)
	resp, err := imagesapi.NewImagesClient(conn).Get(ctx, &imagesapi.GetImageRequest{Name: name})
	if status.Code(err) == codes.NotFound {
		return nil
	}
	harness.Must(d.T, err)
	return resp.Image
}

// archiveNames is a store with the names that an archive gives its images.
func archiveNames() *transfertypes.ImageStore {
	return &transfertypes.ImageStore{ExtraReferences: []*transfertypes.ImageReference{{Name: "import", IsPrefix: true, AllowOverwrite: true}}}
}

func onLinux(arch ...string) (list []*apitypes.Platform) {
	for _, a := range arch {
		name, variant, _ := strings.Cut(a, "/")
		list = append(list, &apitypes.Platform{OS: "linux", Architecture: name, Variant: variant})
	}
	return list
}

// order returns the events of each name, without repetitions.
func order(events []*transfertypes.Progress) map[string][]string {
	out := make(map[string][]string)
	for _, e := range events {
		key := e.GetName() // of an image; without a name, of the whole transfer
		if e.GetDesc() != nil && strings.Contains(key, "-sha256:") {
			key = e.GetDesc().GetDigest() // a part
		}
		if l := out[key]; len(l) == 0 || l[len(l)-1] != e.GetEvent() {
			out[key] = append(out[key], e.GetEvent())
		}
	}
	return out
}

func TestTransfer_PullOfPlatform_ReportsProgress(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	index := r.MultiPlatform("multi/box:1", "linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x")
	ref := r.Host + "/multi/box:1"
	d := harness.Start(t)
	for transport, m := range fixture.Movers(d, "default") {
		t.Run(transport, func(t *testing.T) {
			m.T = t
			events := must(m, &transfertypes.OCIRegistry{Reference: ref}, &transfertypes.ImageStore{
				Name: "mine/box:1", Labels: map[string]string{"a": "b"}, Platforms: onLinux("amd64"),
				Unpacks:         []*transfertypes.UnpackConfiguration{{Platform: onLinux("amd64")[0]}},
				ExtraReferences: []*transfertypes.ImageReference{{Name: "other/name:2"}, {Name: "by", IsPrefix: true, AddDigest: true}},
			})
			for _, name := range []string{"mine/box:1", "other/name:2", "by@" + index} {
				if img := image(d, "default", name); img == nil || img.Target.Digest != index || img.Labels["a"] != "b" {
					t.Errorf("%s: %v", name, img)
				}
			}
			if image(d, "default", ref) != nil {
				t.Errorf("an unrequested name was recorded")
			}
			if out := d.Cleat("run", "--rm", "mine/box:1", "echo", "runs"); out != "runs" {
				t.Errorf("run: %q", out)
			}
			layers := 0
			for key, list := range order(events) {
				switch {
				case key == "":
					want := []string{"Resolving from OCI Registry (" + ref + ")", "Pulling from OCI Registry (" + ref + ")", "Completed pull from OCI Registry (" + ref + ")"}
					if !slices.Equal(list, want) {
						t.Errorf("progress of the transfer: %q", list)
					}
				case slices.Contains(list, "extracting"):
					layers++
					if want := []string{"waiting", "downloading", "complete", "extracting", "extracted"}; !slices.Equal(list, want) {
						t.Errorf("progress of a layer: %q", list)
					}
				case key == index:
					if want := []string{"waiting", "downloading", "complete"}; !slices.Equal(list, want) {
						t.Errorf("progress of the index: %q", list)
					}
				}
			}
			if layers != 2 {
				t.Errorf("%d layers reported as complete: %v", layers, events)
			}
			last := events[len(events)-1]
			saved := slices.ContainsFunc(events, func(p *transfertypes.Progress) bool { return p.GetEvent() == "saved" && p.GetName() == "mine/box:1" })
			if !saved || last.GetEvent() != "Completed pull from OCI Registry ("+ref+")" {
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
			d.NoRemains(transport)
		})
	}
}

func TestTransfer_SelectsManifests(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	r.MultiPlatform("multi/box:1", "linux/amd64", "linux/arm64", "linux/arm/v7", "linux/s390x")
	ref := r.Host + "/multi/box:1"
	d := harness.Start(t)
	m := fixture.Movers(d, "default")["gRPC"]
	parts := func(store *transfertypes.ImageStore) (manifests, layers int) {
		t.Helper()
		store.Name = "box:1"
		seen := make(map[string]bool)
		for _, e := range must(m, &transfertypes.OCIRegistry{Reference: ref}, store) {
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
	// Each has its own layer, and they share one.
	for what, c := range map[string]struct {
		store             *transfertypes.ImageStore
		manifests, layers int
	}{
		"all":               {&transfertypes.ImageStore{}, 4, 5},
		"one":               {&transfertypes.ImageStore{Platforms: onLinux("arm64")}, 1, 2},
		"two":               {&transfertypes.ImageStore{Platforms: onLinux("amd64", "s390x")}, 2, 3},
		"two, limit one":    {&transfertypes.ImageStore{Platforms: onLinux("s390x", "amd64"), ManifestLimit: 1}, 1, 2},
		"best match":        {&transfertypes.ImageStore{Platforms: onLinux("arm/v8")}, 1, 2},
		"limit two":         {&transfertypes.ImageStore{ManifestLimit: 2}, 2, 3},
		"one, all metadata": {&transfertypes.ImageStore{Platforms: onLinux("amd64"), AllMetadata: true}, 4, 2},
	} {
		if manifests, layers := parts(c.store); manifests != c.manifests || layers != c.layers {
			t.Errorf("%s: %d manifests with %d layers, want %d with %d", what, manifests, layers, c.manifests, c.layers)
		}
	}
	_, err := move(m.Ctx, m, &transfertypes.OCIRegistry{Reference: ref}, &transfertypes.ImageStore{Name: "box:1", Platforms: onLinux("riscv64")})
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "linux/s390x") {
		t.Errorf("a missing platform: %v", err)
	}
	d.NoRemains("pulls of platforms")
}

func TestTransfer_SeveralPlatforms(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	index := r.MultiPlatform("multi/box:1", "linux/amd64", "linux/arm64", "linux/s390x")
	d := harness.Start(t)
	m := fixture.Movers(d, "default")["gRPC"]
	must(m, &transfertypes.OCIRegistry{Reference: r.Host + "/multi/box:1"}, &transfertypes.ImageStore{Name: "box:1"})
	push := func(name string, on ...string) error {
		_, err := move(m.Ctx, m, &transfertypes.ImageStore{Name: "box:1", Platforms: onLinux(on...)}, &transfertypes.OCIRegistry{Reference: r.Host + "/" + name})
		return err
	}
	if err := push("two/box:1", "amd64", "arm64"); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "platform") {
		t.Errorf("push of two of three: %v", err)
	}
	harness.Must(t, push("one/box:1", "arm64"))
	if got := r.Digest("one/box:1"); got == index {
		t.Errorf("push of one platform sent all: %s", got)
	}
	harness.Must(t, push("all/box:1", "amd64", "arm64", "s390x"))
	if got := r.Digest("all/box:1"); got != index {
		t.Errorf("push of each platform sent %s, want %s", got, index)
	}

	all, two, one := export(m, "box:1", &transfertypes.ImageExportStream{AllPlatforms: true}), export(m, "box:1", &transfertypes.ImageExportStream{Platforms: onLinux("arm64", "amd64")}),
		export(m, "box:1", &transfertypes.ImageExportStream{Platforms: onLinux("arm64")})
	blobs := func(archive []byte) int { return bytes.Count(archive, []byte("blobs/sha256/")) }
	if blobs(all) <= blobs(two) || blobs(two) <= blobs(one) {
		t.Errorf("all has %d blobs, two %d, one %d", blobs(all), blobs(two), blobs(one))
	}
	d.Cleat("image", "rm", "box:1")
	bring(m, two, &transfertypes.ImageImportStream{}, archiveNames())
	if img := image(d, "default", "box:1"); img.GetTarget().GetDigest() != index {
		t.Errorf("two platforms imported as %v, exported as %s", img, index)
	}
	d.Cleat("image", "rm", "box:1")
	d.NoRemains("transfers of some platforms")
}

func TestTransfer_PushTagImportExport(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	archives := harness.ToolArchives(t)
	d := harness.Start(t)
	for transport, m := range fixture.Movers(d, "default") {
		t.Run(transport, func(t *testing.T) {
			m.T = t
			bring := func(path string, how *transfertypes.ImageImportStream, store *transfertypes.ImageStore) []*transfertypes.Progress {
				t.Helper()
				data, err := os.ReadFile(path)
				harness.Must(t, err)
				return bring(m, data, how, store)
			}
			fetch := func(store *transfertypes.ImageStore, how *transfertypes.ImageExportStream) []byte {
				t.Helper()
				id, s := stream(m, "export")
				got := make(chan []byte, 1)
				go func() {
					data, err := receive(s, 100_000)
					if err != nil {
						t.Errorf("receive archive: %v", err)
					}
					got <- data
				}()
				how.Stream = id
				must(m, store, how)
				return <-got
			}
			events := bring(archives["skopeo's OCI archive"], &transfertypes.ImageImportStream{MediaType: "application/vnd.oci.image.layout.v1+tar"},
				&transfertypes.ImageStore{Name: "first:1", Unpacks: []*transfertypes.UnpackConfiguration{{}}})
			if list := order(events); !slices.Contains(list[""], "Importing") || !slices.Contains(list["first:1"], "saved") {
				t.Errorf("progress of an import: %v", events)
			}
			first := image(d, "default", "first:1").GetTarget().GetDigest()

			must(m, &transfertypes.ImageStore{Name: "first:1"}, &transfertypes.ImageStore{Name: "second:1", Labels: map[string]string{"x": "y"}})
			if img := image(d, "default", "second:1"); img == nil || img.Target.Digest != first || img.Labels["x"] != "y" {
				t.Errorf("tagged: %v", img)
			}

			ref := r.Host + "/pushed/" + strings.ToLower(transport) + ":1"
			events = must(m, &transfertypes.ImageStore{Name: "second:1"}, &transfertypes.OCIRegistry{Reference: ref})
			if got := r.Digest("pushed/" + strings.ToLower(transport) + ":1"); got != first {
				t.Errorf("the registry has %s, pushed was %s", got, first)
			}
			if list := order(events)[first]; !slices.Equal(list, []string{"waiting", "complete"}) {
				t.Errorf("progress of the pushed manifest: %q", list)
			}

			archive := fetch(&transfertypes.ImageStore{Name: "first:1", ExtraReferences: []*transfertypes.ImageReference{{Name: "second:1"}}}, &transfertypes.ImageExportStream{})
			for _, name := range []string{"first:1", "second:1"} {
				d.Cleat("image", "rm", name)
			}
			d.NoRemains("a transfer of each kind")
			path := t.TempDir() + "/back.tar"
			harness.Must(t, os.WriteFile(path, archive, 0o600))
			whole := archiveNames()
			whole.Name = "back:1"
			bring(path, &transfertypes.ImageImportStream{}, whole)
			for _, name := range []string{"first:1", "second:1"} {
				if img := image(d, "default", name); img.GetTarget().GetDigest() != first {
					t.Errorf("%s imported as %v, exported as %s", name, img, first)
				}
				d.Cleat("image", "rm", name)
			}
			if img := image(d, "default", "back:1"); !strings.Contains(img.GetTarget().GetMediaType(), "index") {
				t.Errorf("the whole archive is %v", img)
			}
			again := fetch(&transfertypes.ImageStore{Name: "back:1"}, &transfertypes.ImageExportStream{SkipCompatibilityManifest: true})
			if bytes.Contains(again, []byte("manifest.json")) || !bytes.Contains(archive, []byte("manifest.json")) {
				t.Error("presence of manifest.json differs from the request")
			}
			d.Cleat("image", "rm", "back:1")

			// Names by prefixes, and compressed layers.
			saved := archives["a docker save archive"]
			bring(saved, &transfertypes.ImageImportStream{}, &transfertypes.ImageStore{ExtraReferences: []*transfertypes.ImageReference{
				{Name: "example.com/box", IsPrefix: true}, {Name: "any/where", IsPrefix: true, AddDigest: true},
			}})
			plain := image(d, "default", "example.com/box:1").GetTarget().GetDigest()
			if plain == "" || image(d, "default", "any/where@"+plain) == nil {
				t.Errorf("names by prefix: %q, %s", plain, d.Cleat("image", "ls"))
			}
			bring(saved, &transfertypes.ImageImportStream{ForceCompress: true}, &transfertypes.ImageStore{Name: "packed:1", Unpacks: []*transfertypes.UnpackConfiguration{{}}})
			if packed := image(d, "default", "packed:1").GetTarget().GetDigest(); packed == plain || packed == "" {
				t.Errorf("packed is %s, plain %s", packed, plain)
			}
			if out := d.Cleat("run", "--rm", "packed:1", "echo", "runs"); out != "runs" {
				t.Errorf("run: %q", out)
			}
			for _, name := range strings.Fields(d.Cleat("image", "ls", "--quiet")) {
				d.Cleat("image", "rm", name)
			}
			d.NoRemains(transport)
		})
	}
}
