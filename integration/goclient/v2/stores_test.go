package goclient

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/integration/harness"
)

func TestImages(t *testing.T) {
	f := start(t)
	if ok, err := f.image.IsUnpacked(f.ctx, "overlayfs"); err != nil || !ok {
		t.Errorf("unpacked: %v, %v", ok, err)
	}
	ids, err := f.image.RootFS(f.ctx)
	f.must(err)
	if len(ids) != 2 {
		t.Errorf("rootfs %v", ids)
	}
	spec, err := f.image.Spec(f.ctx)
	f.must(err)
	if !slices.Equal(spec.Config.Cmd, []string{"/bin/sh"}) {
		t.Errorf("command %q", spec.Config.Cmd)
	}
	size, err := f.image.Size(f.ctx)
	f.must(err)
	usage, err := f.image.Usage(f.ctx)
	f.must(err)
	if size < 1<<19 || usage < size {
		t.Errorf("size %d, usage %d", size, usage)
	}

	store := f.client.ImageService()
	second, err := store.Create(f.ctx, images.Image{Name: "example.test/second:1", Target: f.image.Target(), Labels: map[string]string{"a": "1"}})
	f.must(err)
	if second.CreatedAt.IsZero() {
		t.Error("no time of creation")
	}
	if _, err := store.Create(f.ctx, second); !errdefs.IsAlreadyExists(err) {
		t.Errorf("create twice: %v", err)
	}
	second.Labels = map[string]string{"b": "2"}
	updated, err := store.Update(f.ctx, second, "labels.b")
	f.must(err)
	if updated.Labels["a"] != "1" || updated.Labels["b"] != "2" {
		t.Errorf("labels %v", updated.Labels)
	}
	listed, err := f.client.ListImages(f.ctx, `labels."b"==2`)
	f.must(err)
	if len(listed) != 1 || listed[0].Name() != second.Name {
		t.Errorf("listed by label: %v", listed)
	}
	f.must(store.Delete(f.ctx, second.Name))
	if _, err := store.Get(f.ctx, second.Name); !errdefs.IsNotFound(err) {
		t.Errorf("get after delete: %v", err)
	}
	blob := f.image.Target().Digest
	f.must(store.Delete(f.ctx, imageName, images.SynchronousDelete()))
	if _, err := f.client.ContentStore().Info(f.ctx, blob); !errdefs.IsNotFound(err) {
		t.Errorf("the manifest after a synchronous delete of its image: %v", err)
	}
}

func TestExportImportRoundTrip(t *testing.T) {
	f := start(t)
	var first, second bytes.Buffer
	f.must(f.client.Export(f.ctx, &first, archive.WithImage(f.client.ImageService(), imageName)))
	other := namespaces.WithNamespace(f.ctx, "other")
	imported, err := f.client.Import(other, bytes.NewReader(first.Bytes()))
	f.must(err)
	if len(imported) != 1 || imported[0].Target.Digest != f.image.Target().Digest {
		t.Fatalf("imported %+v, not %s", imported, f.image.Target().Digest)
	}
	f.must(f.client.Export(other, &second, archive.WithImage(f.client.ImageService(), imageName)))
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the archives differ")
	}
}

func TestContent(t *testing.T) {
	f := start(t)
	store := f.client.ContentStore()
	body := bytes.Repeat([]byte("0123456789"), 300_000)
	want := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(body), Size: int64(len(body))}
	ctx, done, err := f.client.WithLease(f.ctx)
	f.must(err)

	w, err := store.Writer(ctx, content.WithRef("upload"), content.WithDescriptor(want))
	f.must(err)
	_, err = w.Write(body[:1_000_000])
	f.must(err)
	f.must(w.Close())
	status, err := store.Status(ctx, "upload")
	f.must(err)
	if status.Offset != 1_000_000 || status.Total != want.Size {
		t.Errorf("status %+v", status)
	}
	w, err = content.OpenWriter(ctx, store, content.WithRef("upload"), content.WithDescriptor(want)) // waits until the first writer has left
	f.must(err)
	resumed, err := w.Status()
	f.must(err)
	_, err = w.Write(body[resumed.Offset:])
	f.must(err)
	f.must(w.Commit(ctx, want.Size, want.Digest, content.WithLabels(map[string]string{"made": "here"})))
	f.must(w.Close())
	if _, err := store.Writer(ctx, content.WithRef("again"), content.WithDescriptor(want)); !errdefs.IsAlreadyExists(err) {
		t.Errorf("writer for an existing blob: %v", err)
	}
	err = content.WriteBlob(ctx, store, "liar", strings.NewReader("something else"), ocispec.Descriptor{Digest: digest.FromString("true"), Size: 14})
	if !errdefs.IsFailedPrecondition(err) {
		t.Errorf("content with a wrong digest: %v", err)
	}
	read, err := content.ReadBlob(ctx, store, want)
	f.must(err)
	if !bytes.Equal(read, body) {
		t.Error("read different bytes")
	}
	info, err := store.Info(ctx, want.Digest)
	f.must(err)
	if info.Labels["made"] != "here" || info.Size != want.Size {
		t.Errorf("info %+v", info)
	}
	found := 0
	f.must(store.Walk(ctx, func(content.Info) error { found++; return nil }, `labels."made"==here`))
	if found != 1 {
		t.Errorf("%d blobs with the label", found)
	}
	f.must(done(ctx))
	f.must(store.Abort(f.ctx, "liar"))
}

func TestLeasesAndCollection(t *testing.T) {
	f := start(t)
	manager := f.client.LeasesService()
	lease, err := manager.Create(f.ctx, leases.WithID("mine"), leases.WithLabels(map[string]string{"why": "test"}))
	f.must(err)
	body := []byte("kept by a lease")
	d := ocispec.Descriptor{Digest: digest.FromBytes(body), Size: int64(len(body))}
	f.must(content.WriteBlob(leases.WithLease(f.ctx, lease.ID), f.client.ContentStore(), "leased", bytes.NewReader(body), d))
	listed, err := manager.List(f.ctx, `labels."why"==test`)
	f.must(err)
	if len(listed) != 1 || listed[0].ID != "mine" {
		t.Errorf("leases %+v", listed)
	}
	resources, err := manager.ListResources(f.ctx, lease)
	f.must(err)
	if len(resources) != 1 || resources[0].ID != d.Digest.String() || resources[0].Type != "content" {
		t.Errorf("resources %+v", resources)
	}
	other, err := manager.Create(f.ctx, leases.WithRandomID())
	f.must(err)
	f.must(manager.Delete(f.ctx, other, leases.SynchronousDelete)) // collects garbage
	if _, err := f.client.ContentStore().Info(f.ctx, d.Digest); err != nil {
		t.Errorf("leased content after a collection: %v", err)
	}
	f.must(manager.Delete(f.ctx, lease, leases.SynchronousDelete))
	if _, err := f.client.ContentStore().Info(f.ctx, d.Digest); !errdefs.IsNotFound(err) {
		t.Errorf("content without lease after a collection: %v", err)
	}
}

func TestSnapshotsAndDiff(t *testing.T) {
	f := start(t)
	ctx, done, err := f.client.WithLease(f.ctx)
	f.must(err)
	defer func() { f.must(done(ctx)) }()
	sn := f.client.SnapshotService("overlayfs")
	ids, err := f.image.RootFS(ctx)
	f.must(err)
	parent := identity.ChainID(ids).String()
	mounts, err := sn.Prepare(ctx, "change", parent, snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "now"}))
	f.must(err)
	if _, err := sn.Prepare(ctx, "change", parent); !errdefs.IsAlreadyExists(err) {
		t.Errorf("prepare twice: %v", err)
	}
	f.must(mount.WithTempMount(ctx, mounts, func(root string) error {
		return os.WriteFile(filepath.Join(root, "etc", "added"), []byte("by a client"), 0o640)
	}))
	lower, err := sn.View(ctx, "base", parent)
	f.must(err)
	layer, err := f.client.DiffService().Compare(ctx, lower, mounts, diff.WithMediaType(ocispec.MediaTypeImageLayerGzip))
	f.must(err)
	if layer.MediaType != ocispec.MediaTypeImageLayerGzip || layer.Size == 0 {
		t.Errorf("layer %+v", layer)
	}
	f.must(sn.Remove(ctx, "base"))
	f.must(sn.Remove(ctx, "change"))

	mounts, err = sn.Prepare(ctx, "copy", parent)
	f.must(err)
	applied, err := f.client.DiffService().Apply(ctx, layer, mounts)
	f.must(err)
	if applied.MediaType != ocispec.MediaTypeImageLayer {
		t.Errorf("applied %+v", applied)
	}
	f.must(sn.Commit(ctx, "copied", "copy"))
	view, err := sn.View(ctx, "look", "copied")
	f.must(err)
	f.must(mount.WithReadonlyTempMount(ctx, view, func(root string) error {
		body, err := os.ReadFile(filepath.Join(root, "etc", "added"))
		if err == nil && string(body) != "by a client" {
			err = fmt.Errorf("read %q", body)
		}
		return err
	}))
	info, err := sn.Stat(ctx, "copied")
	f.must(err)
	if info.Kind != snapshots.KindCommitted || info.Parent != parent {
		t.Errorf("info %+v", info)
	}
	if err := sn.Remove(ctx, "copied"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("remove of a parent: %v", err)
	}
	usage, err := sn.Usage(ctx, "copied")
	f.must(err)
	if usage.Size == 0 || usage.Inodes == 0 {
		t.Errorf("usage %+v", usage)
	}
	var names []string
	f.must(sn.Walk(ctx, func(_ context.Context, i snapshots.Info) error { names = append(names, i.Name); return nil }))
	if !slices.Contains(names, "copied") || !slices.Contains(names, "look") {
		t.Errorf("walk %q", names)
	}
	f.must(sn.Remove(ctx, "look"))
	f.must(sn.Remove(ctx, "copied"))
}

func TestNamespaces_AreIsolated(t *testing.T) {
	f := start(t)
	other := namespaces.WithNamespace(f.ctx, "other")
	f.must(f.client.NamespaceService().Create(other, "other", map[string]string{"owner": "alice"}))
	if err := f.client.NamespaceService().Create(other, "other", nil); !errdefs.IsAlreadyExists(err) {
		t.Errorf("create twice: %v", err)
	}
	labels, err := f.client.NamespaceService().Labels(other, "other")
	f.must(err)
	if labels["owner"] != "alice" {
		t.Errorf("labels %v", labels)
	}
	f.container("mine", "true")
	if _, err := f.client.LoadContainer(other, "mine"); !errdefs.IsNotFound(err) {
		t.Errorf("a container of another namespace: %v", err)
	}
	if _, err := f.client.GetImage(other, imageName); !errdefs.IsNotFound(err) {
		t.Errorf("an image of another namespace: %v", err)
	}
	if _, err := f.client.ContentStore().ReaderAt(other, f.image.Target()); !errdefs.IsNotFound(err) {
		t.Errorf("content of another namespace: %v", err)
	}
	if _, err := f.client.SnapshotService("overlayfs").Stat(other, "mine-snapshot"); !errdefs.IsNotFound(err) {
		t.Errorf("a snapshot of another namespace: %v", err)
	}
	if err := f.client.NamespaceService().Delete(f.ctx, "tests"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("delete of a namespace in use: %v", err)
	}
	f.must(f.client.NamespaceService().Delete(f.ctx, "other"))
}

func TestPushAndPull(t *testing.T) {
	f := start(t)
	ref := harness.StartRegistry(t, harness.RegistryOptions{}).Host + "/team/busybox:1"
	f.must(f.client.Push(f.ctx, ref, f.image.Target(), remote()))
	other := namespaces.WithNamespace(f.ctx, "puller")
	pulled, err := f.client.Pull(other, ref, remote(), unpacked())
	f.must(err)
	if pulled.Target().Digest != f.image.Target().Digest {
		t.Errorf("pulled %s, pushed %s", pulled.Target().Digest, f.image.Target().Digest)
	}
	if ok, err := pulled.IsUnpacked(other, "overlayfs"); err != nil || !ok {
		t.Errorf("unpacked: %v, %v", ok, err)
	}
	if _, err := f.client.Pull(other, ref+"-absent", remote()); !errdefs.IsNotFound(err) {
		t.Errorf("pull of a missing image: %v", err)
	}
	fetched, err := f.client.Fetch(namespaces.WithNamespace(f.ctx, "fetcher"), ref, remote())
	f.must(err)
	if fetched.Target.Digest != f.image.Target().Digest {
		t.Errorf("fetched %s", fetched.Target.Digest)
	}
}

func TestRun_ImagePushedByBuildah(t *testing.T) {
	f := start(t)
	for i, ref := range harness.BuildahImages(t, harness.StartRegistry(t, harness.RegistryOptions{}).Host) {
		image, err := f.client.Pull(f.ctx, ref, remote(), unpacked())
		f.must(err)
		f.image = image
		c := f.containerWith(fmt.Sprint("built", i))
		var s streams
		task, exit := f.begin(c, s.creator(f, nil))
		if code := f.code(exit); code != 0 {
			t.Errorf("%s: code %d", ref, code)
		}
		task.IO().Wait()
		if s.out.String() != "by buildah\n" {
			t.Errorf("%s: %q, %q", ref, s.out.String(), s.err.String())
		}
		_, err = task.Delete(f.ctx)
		f.must(err)
		f.remove(c)
	}
}
