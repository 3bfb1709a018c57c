package api

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

func TestTransfer_CombinesOwnAndPublishedEnds(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	index := r.MultiPlatform("multi/box:1", "linux/amd64", "linux/arm64")
	ref := r.Host + "/multi/box:1"
	d := harness.Start(t)
	m := fixture.Movers(d, "default")["gRPC"]
	move := func(source, destination *anypb.Any) error {
		return m.Transfer(m.Ctx, &transferapi.TransferRequest{Source: source, Destination: destination})
	}
	store := func(s *cleatapi.ImageStore) *anypb.Any { return fixture.Own(t, cleatapi.ImageStoreType, s) }
	remote := func(name string) *anypb.Any {
		return fixture.Own(t, cleatapi.RegistryType, &cleatapi.Registry{Reference: r.Host + "/" + name, MaxConcurrent: 1})
	}
	file := filepath.Join(t.TempDir(), "archive.tar")
	harness.Must(t, os.WriteFile(file, []byte("what was there before"), 0o600))
	archive := fixture.Own(t, cleatapi.ArchiveFileType, &cleatapi.ArchiveFile{Path: file})

	harness.Must(t, move(named(&transfertypes.OCIRegistry{Reference: ref}), store(&cleatapi.ImageStore{AllPlatforms: true})))
	harness.Must(t, move(remote("multi/box:1"), named(&transfertypes.ImageStore{Name: "exactly"})))
	harness.Must(t, move(named(&transfertypes.ImageStore{Name: "exactly"}), store(&cleatapi.ImageStore{Names: []string{"loosely"}})))
	harness.Must(t, move(store(&cleatapi.ImageStore{Names: []string{"loosely"}}), named(&transfertypes.OCIRegistry{Reference: r.Host + "/copy/box:1"})))
	harness.Must(t, move(named(&transfertypes.ImageStore{Name: "exactly"}), archive))
	for _, name := range []string{ref, "exactly", "docker.io/library/loosely:latest"} {
		if img := image(d, "default", name); img.GetTarget().GetDigest() != index {
			t.Errorf("%s is %v, the registry has %s", name, img, index)
		}
		d.Cleat("image", "rm", name)
	}
	if got := r.Digest("copy/box:1"); got != index {
		t.Errorf("pushed %s, want %s", got, index)
	}
	harness.Must(t, move(archive, named(archiveNames())))
	if img := image(d, "default", "exactly"); img != nil {
		t.Errorf("a bare name was returned: %v", img)
	}
	harness.Must(t, move(archive, store(&cleatapi.ImageStore{Names: []string{"back:1"}})))
	if img := image(d, "default", "docker.io/library/back:1"); img.GetTarget().GetDigest() != index {
		t.Errorf("imported as %v, exported as %s", img, index)
	}

	for what, c := range map[string]struct {
		source, destination *anypb.Any
		code                codes.Code
		says                string
	}{
		"two names for one":           {remote("multi/box:1"), store(&cleatapi.ImageStore{Names: []string{"a", "b"}}), codes.InvalidArgument, "2 names"},
		"a name by digest":            {remote("multi/box:1"), store(&cleatapi.ImageStore{Names: []string{"a@" + index}}), codes.InvalidArgument, "is a digest"},
		"a tag without a source name": {store(&cleatapi.ImageStore{Names: []string{"back:1"}}), store(&cleatapi.ImageStore{}), codes.InvalidArgument, "no name to store"},
		"a push of two":               {store(&cleatapi.ImageStore{Names: []string{"a", "b"}}), remote("copy/box:2"), codes.InvalidArgument, "several"},
		"one platform and all":        {store(&cleatapi.ImageStore{Names: []string{"back:1"}, Platform: "linux/arm64", AllPlatforms: true}), archive, codes.InvalidArgument, "exclude each other"},
		"an invalid platform":         {remote("multi/box:1"), store(&cleatapi.ImageStore{Platform: "///"}), codes.InvalidArgument, "os/arch"},
		"an invalid message":          {&anypb.Any{TypeUrl: cleatapi.RegistryType, Value: []byte{0xff}}, store(&cleatapi.ImageStore{}), codes.InvalidArgument, "decode"},
		"a file to a registry":        {archive, remote("copy/box:2"), codes.Unimplemented, cleatapi.ArchiveFileType},
		"an export without an image":  {store(&cleatapi.ImageStore{}), archive, codes.InvalidArgument, "names no image"},
	} {
		if err := move(c.source, c.destination); status.Code(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
	d.Cleat("image", "rm", "back:1")
	d.NoRemains("transfers between own and published ends")
}
