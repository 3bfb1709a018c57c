package integration

import (
	"strings"
	"sync"
	"testing"

	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// exportAll exports an image of the default namespace with all that is present of it.
func exportAll(t *testing.T, m *mover, name string) []byte {
	t.Helper()
	id, s := m.stream("export")
	var data []byte
	var wg sync.WaitGroup
	wg.Go(func() {
		var err error
		if data, err = receive(s, 1<<20); err != nil {
			t.Errorf("receive archive: %v", err)
		}
	})
	m.must(&transfertypes.ImageStore{Name: name}, &transfertypes.ImageExportStream{Stream: id, AllPlatforms: true})
	wg.Wait()
	return data
}

func TestImport_WithPlatforms_KeepsWhatIsChosen(t *testing.T) {
	r := StartRegistry(t, RegistryOptions{})
	index := r.multiPlatform("multi/box:1", "linux/amd64", "linux/arm64", "linux/s390x", "linux/arm/v7")
	d := Start(t)
	m := d.movers("default")["gRPC"]
	m.must(&transfertypes.OCIRegistry{Reference: r.Host + "/multi/box:1"}, &transfertypes.ImageStore{Name: "box:1"})
	archive := exportAll(t, m, "box:1")
	// Each manifest has a configuration and a layer of its own, and they have one layer in common. The index
	// of the archive and the image's own are kept in any case.
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
			m := d.movers(name)["ttrpc"]
			m.t = t
			c.store.Name, c.store.ExtraReferences = "whole", archiveNames().ExtraReferences
			m.bring(archive, c.store)
			d.Cleat("-n", name, "gc")
			listed, errs, code := ctr(t, d.Address, "-n", name, "content", "ls", "-q")
			if got, want := len(strings.Fields(listed)), c.blobs+indexes+common; code != 0 || got != want {
				t.Errorf("%d blobs are kept, want %d\n%s%s", got, want, listed, errs)
			}
			if img := d.image(name, "box:1"); img.GetTarget().GetDigest() != index {
				t.Errorf("image came back as %v, went as %s", img, index)
			}
		})
	}

	_, err := d.movers("none")["gRPC"].tryBring(archive, &transfertypes.ImageStore{Name: "whole", Platforms: onLinux("riscv64")})
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "linux/s390x") {
		t.Errorf("import for a platform that the archive lacks: %v", err)
	}
}

// bring imports an archive.
func (m *mover) bring(archive []byte, store *transfertypes.ImageStore) []*transfertypes.Progress {
	m.t.Helper()
	events, err := m.tryBring(archive, store)
	must(m.t, err)
	return events
}

// tryBring imports an archive, which may fail.
func (m *mover) tryBring(archive []byte, store *transfertypes.ImageStore) ([]*transfertypes.Progress, error) {
	m.t.Helper()
	id, s := m.stream("import")
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := give(s, archive); err != nil {
			m.t.Errorf("send archive: %v", err)
		}
	})
	defer wg.Wait()
	return m.move(m.ctx, &transfertypes.ImageImportStream{Stream: id}, store)
}
