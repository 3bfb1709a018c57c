package api

import (
	"strings"
	"testing"

	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

func TestImport_WithPlatforms_KeepsSelectedOnes(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	index := r.MultiPlatform("multi/box:1", "linux/amd64", "linux/arm64", "linux/s390x", "linux/arm/v7")
	d := harness.Start(t)
	m := fixture.Movers(d, "default")["gRPC"]
	must(m, &transfertypes.OCIRegistry{Reference: r.Host + "/multi/box:1"}, &transfertypes.ImageStore{Name: "box:1"})
	archive := export(m, "box:1", &transfertypes.ImageExportStream{AllPlatforms: true})
	// Each manifest has its own configuration and layer, and they share one layer. The index of the archive and the
	// image's own are kept in any case.
	const indexes, common = 2, 1
	for name, c := range map[string]struct {
		store *transfertypes.ImageStore
		blobs int
	}{
		"all":           {&transfertypes.ImageStore{}, 4 * 3},
		"one":           {&transfertypes.ImageStore{Platforms: onLinux("arm64")}, 3},
		"two":           {&transfertypes.ImageStore{Platforms: onLinux("amd64", "s390x")}, 2 * 3},
		"limited":       {&transfertypes.ImageStore{Platforms: onLinux("s390x", "amd64"), ManifestLimit: 1}, 3},
		"best-match":    {&transfertypes.ImageStore{Platforms: onLinux("arm/v8")}, 3},
		"limit-only":    {&transfertypes.ImageStore{ManifestLimit: 2}, 2 * 3},
		"all-documents": {&transfertypes.ImageStore{Platforms: onLinux("amd64"), AllMetadata: true}, 4*2 + 1},
	} {
		t.Run(name, func(t *testing.T) {
			m := fixture.Movers(d, name)["ttrpc"]
			m.T = t
			c.store.Name, c.store.ExtraReferences = "whole", archiveNames().ExtraReferences
			bring(m, archive, &transfertypes.ImageImportStream{}, c.store)
			d.Cleat("-n", name, "gc")
			listed, errs, code := harness.Ctr(t, d.Address, "-n", name, "content", "ls", "-q")
			if got, want := len(strings.Fields(listed)), c.blobs+indexes+common; code != 0 || got != want {
				t.Errorf("%d blobs are kept, want %d\n%s%s", got, want, listed, errs)
			}
			if img := image(d, name, "box:1"); img.GetTarget().GetDigest() != index {
				t.Errorf("imported as %v, exported as %s", img, index)
			}
		})
	}

	_, err := tryImport(fixture.Movers(d, "none")["gRPC"], archive, &transfertypes.ImageImportStream{}, &transfertypes.ImageStore{Name: "whole", Platforms: onLinux("riscv64")})
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "linux/s390x") {
		t.Errorf("import for a missing platform: %v", err)
	}
}
