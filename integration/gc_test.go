package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// onDisk lists the blobs and the snapshot directories below the daemon's root.
func (d *Daemon) onDisk() (blobs, snapshots []string) {
	d.t.Helper()
	err := filepath.WalkDir(filepath.Join(d.Root, "content", "blobs"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			blobs = append(blobs, filepath.Base(path))
		}
		return err
	})
	must(d.t, err)
	dirs, err := os.ReadDir(filepath.Join(d.Root, "snapshots", "overlayfs"))
	must(d.t, err)
	for _, e := range dirs {
		snapshots = append(snapshots, e.Name())
	}
	return blobs, snapshots
}

// holds returns an error unless the root has these numbers of blobs and snapshots.
func (d *Daemon) holds(blobs, snapshots int) error {
	b, s := d.onDisk()
	if len(b) != blobs || len(s) != snapshots {
		return fmt.Errorf("%d blobs and %d snapshots are on disk, want %d and %d: %q, %q", len(b), len(s), blobs, snapshots, b, s)
	}
	return nil
}

// freed is an object of `gc --format json`.
type freed struct {
	Freed []struct {
		Kind, Namespace, Name string
		Bytes                 int64
	}
	Bytes int64
}

func (d *Daemon) gc(args ...string) (f freed) {
	d.t.Helper()
	must(d.t, json.Unmarshal([]byte(d.Cleat(append([]string{"gc", "--format", "json"}, args...)...)), &f))
	return f
}

func (f freed) kinds() string {
	var out []string
	for _, x := range f.Freed {
		out = append(out, x.Kind)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// layered imports a two-layer image under a name; the upper layer has a text.
func (d *Daemon) layered(name, text string) {
	d.t.Helper()
	upper := tarOf(d.t, []file{{name: "data", dir: true, mode: 0o755}, {name: "data/text", body: text, mode: 0o644}})
	d.Cleat("image", "import", "--name", name, ociArchive(d.t, [][]byte{tarOf(d.t, busyboxFiles(d.t)), upper}, busyboxConfig(), nil))
}

func TestImageRemove_FreesBlobsAndSnapshots(t *testing.T) {
	d := Start(t)
	d.layered("one", "1")
	d.layered("two", "2")
	must(t, d.holds(7, 3)) // the base is shared
	if dry := d.gc("--dry-run"); len(dry.Freed) != 0 {
		t.Errorf("garbage with two images: %+v", dry)
	}
	if f := d.gc(); len(f.Freed) != 0 {
		t.Errorf("collected with two images: %+v", f)
	}
	d.Cleat("image", "rm", "one")
	must(t, d.holds(4, 2))
	if out := d.Cleat("run", "--rm", "two", "cat", "/data/text"); out != "2" {
		t.Errorf("the other image prints %q", out)
	}
	d.Cleat("image", "rm", "two")
	must(t, d.holds(0, 0))
	d.Cleat("image", "import", "--no-unpack", "--name", "busybox", busyboxArchive(t))
	d.Cleat("run", "--rm", "busybox", "true") // unpacks
	d.gc()
	must(t, d.holds(3, 1))
	d.Cleat("image", "rm", "busybox")
	must(t, d.holds(0, 0))
}

func TestImport_MovesName_FreesOldImage(t *testing.T) {
	d := Start(t)
	d.layered("name", "1")
	d.layered("name", "2")
	d.Eventually("the old image is collected", func() error { return d.holds(4, 2) })
}

func TestImageRemove_KeepsSnapshotsOfContainers(t *testing.T) {
	d := Start(t)
	d.layered("img", "text")
	d.Cleat("run", "-d", "--name", "c", "img", "sleep", "1000")
	d.Cleat("image", "rm", "img")
	must(t, d.holds(0, 3))
	if out := d.Cleat("exec", "c", "cat", "/data/text"); out != "text" {
		t.Errorf("the container reads %q", out)
	}
	out := d.Cleat("why", "c")
	if want := "container c\n-> snapshot c of overlayfs (snapshot)"; out != want {
		t.Errorf("why is %q, want %q", out, want)
	}
	d.Restart()
	d.gc()
	must(t, d.holds(0, 3))
	d.Cleat("rm", "--force", "c")
	d.Eventually("the layers are collected", func() error { return d.holds(0, 0) })
}

func TestWhy_NamesReferences(t *testing.T) {
	d := Start(t)
	d.layered("img", "text")
	var img []struct {
		Digest   string
		Manifest ocispec.Manifest
	}
	must(t, json.Unmarshal([]byte(d.Cleat("image", "inspect", "img")), &img))
	m := img[0].Manifest
	for name, want := range map[string][]string{
		"img":                       {"image docker.io/library/img:latest"},
		img[0].Digest:               {"image docker.io/library/img:latest", "-> content " + img[0].Digest + " (target)"},
		m.Config.Digest.String():    {"(label containerd.io/gc.ref.content.config)"},
		m.Layers[1].Digest.String(): {"(label containerd.io/gc.ref.content.l.1)"},
	} {
		if out := d.Cleat("why", name); inOrder(out, want...) != nil {
			t.Errorf("why %s: %q", name, out)
		}
	}
	// The lower layer is not compressed: its digest is also the name of its snapshot.
	if out := d.Cleat("why", m.Layers[0].Digest.String()); inOrder(out, "gc.ref.content.l.0)", "gc.ref.snapshot.overlayfs)", "(parent)") != nil {
		t.Errorf("why of a layer and its snapshot: %q", out)
	}
	if _, stderr, code := d.Try("why", "nothing"); code != 1 || !strings.Contains(stderr, "no image, blob or snapshot") {
		t.Errorf("why of a missing object: code %d, %q", code, stderr)
	}
}

// leased returns a context for requests with a lease.
func leased(ctx context.Context, id string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-lease", id)
}

// write stores a blob through the API.
func write(ctx context.Context, c contentapi.ContentClient, text string, labels map[string]string) (digest.Digest, error) {
	stream, err := c.Write(ctx)
	if err != nil {
		return "", err
	}
	d := digest.FromString(text)
	err = stream.Send(&contentapi.WriteContentRequest{
		Action: contentapi.WriteAction_COMMIT, Ref: "ref-" + text, Data: []byte(text), Total: int64(len(text)),
		Expected: d.String(), Labels: labels,
	})
	if err == nil {
		_, err = stream.Recv()
	}
	return d, err
}

func TestLease_KeepsCreatedObjects(t *testing.T) {
	d := startUncollected(t)
	ctx, conn := d.grpc()
	content, leases, snapshots := contentapi.NewContentClient(conn), leasesapi.NewLeasesClient(conn), snapshotsapi.NewSnapshotsClient(conn)
	for id, labels := range map[string]map[string]string{
		"l": {"containerd.io/gc.expire": time.Now().Add(time.Hour).Format(time.RFC3339)}, "flat": {"containerd.io/gc.flat": "1"},
	} {
		_, err := leases.Create(ctx, &leasesapi.CreateRequest{ID: id, Labels: labels})
		must(t, err)
	}
	under := leased(ctx, "l")
	a, err := write(under, content, "a", nil)
	must(t, err)
	_, err = write(under, content, "b", map[string]string{"containerd.io/gc.ref.content.x": a.String()})
	must(t, err)
	_, err = snapshots.Prepare(under, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: "key"})
	must(t, err)
	_, err = write(ctx, content, "nobody's", nil)
	must(t, err)
	if f := d.gc(); f.kinds() != "content" {
		t.Errorf("collected %+v", f)
	}
	must(t, d.holds(2, 1))
	// A writer that fails because the content exists adds it to the lease.
	if _, err := write(leased(ctx, "flat"), content, "b", nil); status.Code(err) != codes.AlreadyExists {
		t.Errorf("a second write: %v", err)
	}
	_, err = leases.Delete(ctx, &leasesapi.DeleteRequest{ID: "l", Sync: true})
	must(t, err)
	if err := d.holds(1, 0); err != nil {
		t.Errorf("a flat lease of b only: %v", err)
	}
	if out := d.Cleat("why", digest.FromString("b").String()); inOrder(out, "lease flat\n", "(lease)") != nil {
		t.Errorf("why: %q", out)
	}
	if _, err := write(leased(ctx, "none"), content, "c", nil); status.Code(err) != codes.NotFound {
		t.Errorf("a write under no lease: %v", err)
	}
	_, err = leases.Delete(ctx, &leasesapi.DeleteRequest{ID: "flat", Sync: true})
	must(t, err)
	must(t, d.holds(0, 0))
	stats, err := d.Client().GCStats(t.Context())
	if err != nil || stats.Runs == 0 || stats.Failures != 0 || stats.Removed < 4 {
		t.Errorf("%+v %v", stats, err)
	}
	for _, st := range must2(content.ListStatuses(ctx, &contentapi.ListStatusesRequest{}))(t).GetStatuses() {
		_, err := content.Abort(ctx, &contentapi.AbortRequest{Ref: st.GetRef()})
		must(t, err)
	}
}

// must2 is must for calls with a result.
func must2[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func TestCollect_ObjectsOfCtr_FollowsPublishedRules(t *testing.T) {
	d := Start(t)
	ok := func(args ...string) string {
		t.Helper()
		stdout, stderr, code := ctr(t, d.Address, args...)
		if code != 0 {
			t.Fatalf("ctr %q: code %d, %q, %q\n%s", args, code, stdout, stderr, d.Log())
		}
		return strings.TrimSpace(stdout)
	}
	const name = "docker.io/library/busybox:latest"
	ok("images", "import", "--no-unpack", "--index-name", name, busyboxArchive(t))
	d.Cleat("run", "--rm", name, "true") // unpacks it
	if f := d.gc(); strings.Contains(f.kinds(), "snapshot") {
		t.Errorf("collected %+v", f)
	}
	must(t, d.holds(4, 1)) // includes the index of the archive
	ok("run", "-d", "--fifo-dir", t.TempDir(), name, "c", "sleep", "1000")
	ok("images", "rm", "--sync", name)
	must(t, d.holds(0, 2))
	d.gc()
	d.status("c", "running")
	ok("tasks", "kill", "--signal", "SIGKILL", "c")
	d.status("c", "stopped")
	ok("tasks", "delete", "--force", "c")
	ok("containers", "delete", "c")
	d.gc()
	must(t, d.holds(0, 0))

	blob := filepath.Join(t.TempDir(), "blob")
	must(t, os.WriteFile(blob, []byte("kept by a label"), 0o600))
	sum := digest.FromString("kept by a label").String()
	in, err := os.Open(blob)
	must(t, err)
	defer in.Close()
	ctx, conn := d.grpc()
	content := contentapi.NewContentClient(conn)
	_, err = write(ctx, content, "kept by a label", map[string]string{"containerd.io/gc.root": "1"})
	must(t, err)
	ok("leases", "create", "--id", "mine")
	ok("content", "label", sum, "x=y")
	if f := d.gc(); len(f.Freed) != 0 {
		t.Errorf("collected %+v", f)
	}
	ok("content", "label", sum, "containerd.io/gc.root=")
	ok("leases", "delete", "--sync", "mine")
	must(t, d.holds(0, 0))
}
