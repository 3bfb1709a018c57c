package goclient

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/core/transfer/archive"
	"github.com/containerd/containerd/v2/core/transfer/image"
	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"

	"github.com/cleatproject/cleat/integration/harness"
)

// progress collects the events of a transfer.
type progress struct {
	mu     sync.Mutex
	events []string
}

func (o *progress) option() transfer.Opt {
	return transfer.WithProgress(func(p transfer.Progress) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.events = append(o.events, p.Event)
	})
}

// await waits for one of these events: the client delivers them concurrently with the end of the transfer.
func (o *progress) await(t *testing.T, of string, events ...string) {
	t.Helper()
	harness.Eventually(t, of+" reports its progress", func() error {
		if !slices.ContainsFunc(events, o.has) {
			return fmt.Errorf("none of %q", events)
		}
		return nil
	})
}

func (o *progress) has(event string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.events, func(e string) bool { return strings.HasPrefix(e, event) })
}

// collected is an archive in memory.
type collected struct{ bytes.Buffer }

func (*collected) Close() error { return nil }

var _ io.WriteCloser = (*collected)(nil)

func TestTransfer(t *testing.T) {
	f := start(t)
	ref := harness.StartRegistry(t, harness.RegistryOptions{}).Host + "/team/busybox:1"
	target := f.image.Target().Digest
	remote := func(ref string) *registry.OCIRegistry {
		t.Helper()
		r, err := registry.NewOCIRegistry(f.ctx, ref, registry.WithDefaultScheme("http"))
		f.must(err)
		return r
	}
	digestOf := func(ctx context.Context, name string) string {
		t.Helper()
		img, err := f.client.ImageService().Get(ctx, name)
		f.must(err)
		return img.Target.Digest.String()
	}

	f.must(f.client.Transfer(f.ctx, image.NewStore(imageName), image.NewStore(ref)))
	if got := digestOf(f.ctx, ref); got != target.String() {
		t.Errorf("tagged %s", got)
	}
	var push, pull, imported, exported progress
	f.must(f.client.Transfer(f.ctx, image.NewStore(ref), remote(ref), push.option()))
	push.await(t, "a push", "complete", "already exists")
	other := namespaces.WithNamespace(f.ctx, "other")
	f.must(f.client.Transfer(other, remote(ref), image.NewStore(ref, image.WithUnpack(platforms.DefaultSpec(), "overlayfs"),
		image.WithImageLabels(map[string]string{"of": "test"})), pull.option()))
	pulled, err := f.client.GetImage(other, ref)
	f.must(err)
	if ok, err := pulled.IsUnpacked(other, "overlayfs"); err != nil || !ok || pulled.Labels()["of"] != "test" || pulled.Target().Digest != target {
		t.Errorf("pulled %+v, unpacked %v, %v", pulled.Metadata(), ok, err)
	}
	pull.await(t, "a pull", "saved")
	pull.await(t, "a pull", "complete")

	var out collected
	f.must(f.client.Transfer(f.ctx, image.NewStore(imageName), archive.NewImageExportStream(&out, ""), exported.option()))
	third := namespaces.WithNamespace(f.ctx, "third")
	f.must(f.client.Transfer(third, archive.NewImageImportStream(bytes.NewReader(out.Bytes()), ""),
		image.NewStore("", image.WithNamedPrefix("example.test/busybox", true)), imported.option()))
	if got := digestOf(third, imageName); got != target.String() {
		t.Errorf("exported and imported %s, before %s", got, target)
	}

	if err := f.client.Transfer(other, remote(ref+"-absent"), image.NewStore("x:1")); !errdefs.IsNotFound(err) {
		t.Errorf("pull of a missing image: %v", err)
	}
	if err := f.client.Transfer(other, image.NewStore("absent:1"), image.NewStore("x:1")); !errdefs.IsNotFound(err) {
		t.Errorf("tag of a missing image: %v", err)
	}
	canceled, cancel := context.WithCancel(other)
	cancel()
	if err := f.client.Transfer(canceled, remote(ref), image.NewStore("y:1")); err == nil {
		t.Error("a transfer completed without its client")
	}
}
