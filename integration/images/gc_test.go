package images

import (
	"context"
	"encoding/json"
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

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

func kinds(f harness.Freed) string {
	var out []string
	for _, x := range f.Freed {
		out = append(out, x.Kind)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestImageRemove_FreesBlobsAndSnapshots(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Layered("one", "1")
	d.Layered("two", "2")
	harness.Must(t, d.Holds(7, 3)) // the base is shared
	if dry := d.GC("--dry-run"); len(dry.Freed) != 0 {
		t.Errorf("garbage with two images: %+v", dry)
	}
	if f := d.GC(); len(f.Freed) != 0 {
		t.Errorf("collected with two images: %+v", f)
	}
	d.Cleat("image", "rm", "one")
	harness.Must(t, d.Holds(4, 2))
	if out := d.Cleat("run", "--rm", "two", "cat", "/data/text"); out != "2" {
		t.Errorf("the other image prints %q", out)
	}
	d.Cleat("image", "rm", "two")
	harness.Must(t, d.Holds(0, 0))
	d.Cleat("image", "import", "--no-unpack", "--name", "busybox", harness.BusyboxArchive(t))
	d.Cleat("run", "--rm", "busybox", "true") // unpacks
	d.GC()
	harness.Must(t, d.Holds(3, 1))
	d.Cleat("image", "rm", "busybox")
	harness.Must(t, d.Holds(0, 0))
}

func TestImport_MovesName_FreesOldImage(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Layered("name", "1")
	d.Layered("name", "2")
	d.Eventually("the old image is collected", func() error { return d.Holds(4, 2) })
}

func TestImageRemove_KeepsSnapshotsOfContainers(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Layered("img", "text")
	d.Cleat("run", "-d", "--name", "c", "img", "sleep", "1000")
	d.Cleat("image", "rm", "img")
	harness.Must(t, d.Holds(0, 3))
	if out := d.Cleat("exec", "c", "cat", "/data/text"); out != "text" {
		t.Errorf("the container reads %q", out)
	}
	out := d.Cleat("why", "c")
	if want := "container c\n-> snapshot c of overlayfs (snapshot)"; out != want {
		t.Errorf("why is %q, want %q", out, want)
	}
	d.Restart()
	d.GC()
	harness.Must(t, d.Holds(0, 3))
	d.Cleat("rm", "--force", "c")
	d.Eventually("the layers are collected", func() error { return d.Holds(0, 0) })
}

func TestWhy_NamesReferences(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Layered("img", "text")
	var img []struct {
		Digest   string
		Manifest ocispec.Manifest
	}
	harness.Must(t, json.Unmarshal([]byte(d.Cleat("image", "inspect", "img")), &img))
	m := img[0].Manifest
	for name, want := range map[string][]string{
		"img":                       {"image docker.io/library/img:latest"},
		img[0].Digest:               {"image docker.io/library/img:latest", "-> content " + img[0].Digest + " (target)"},
		m.Config.Digest.String():    {"(label containerd.io/gc.ref.content.config)"},
		m.Layers[1].Digest.String(): {"(label containerd.io/gc.ref.content.l.1)"},
	} {
		if out := d.Cleat("why", name); harness.InOrder(out, want...) != nil {
			t.Errorf("why %s: %q", name, out)
		}
	}
	// The lower layer is not compressed: its digest is also the name of its snapshot.
	if out := d.Cleat("why", m.Layers[0].Digest.String()); harness.InOrder(out, "gc.ref.content.l.0)", "gc.ref.snapshot.overlayfs)", "(parent)") != nil {
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
	t.Parallel()
	d := harness.StartUncollected(t)
	ctx, conn := fixture.GRPC(d)
	content, leases, snapshots := contentapi.NewContentClient(conn), leasesapi.NewLeasesClient(conn), snapshotsapi.NewSnapshotsClient(conn)
	for id, labels := range map[string]map[string]string{
		"l": {"containerd.io/gc.expire": time.Now().Add(time.Hour).Format(time.RFC3339)}, "flat": {"containerd.io/gc.flat": "1"},
	} {
		_, err := leases.Create(ctx, &leasesapi.CreateRequest{ID: id, Labels: labels})
		harness.Must(t, err)
	}
	under := leased(ctx, "l")
	a, err := write(under, content, "a", nil)
	harness.Must(t, err)
	_, err = write(under, content, "b", map[string]string{"containerd.io/gc.ref.content.x": a.String()})
	harness.Must(t, err)
	_, err = snapshots.Prepare(under, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: "key"})
	harness.Must(t, err)
	_, err = write(ctx, content, "unleased", nil)
	harness.Must(t, err)
	if f := d.GC(); kinds(f) != "content" {
		t.Errorf("collected %+v", f)
	}
	harness.Must(t, d.Holds(2, 1))
	// A writer that fails because the content exists adds it to the lease.
	if _, err := write(leased(ctx, "flat"), content, "b", nil); status.Code(err) != codes.AlreadyExists {
		t.Errorf("a second write: %v", err)
	}
	_, err = leases.Delete(ctx, &leasesapi.DeleteRequest{ID: "l", Sync: true})
	harness.Must(t, err)
	if err := d.Holds(1, 0); err != nil {
		t.Errorf("a flat lease of b only: %v", err)
	}
	if out := d.Cleat("why", digest.FromString("b").String()); harness.InOrder(out, "lease flat\n", "(lease)") != nil {
		t.Errorf("why: %q", out)
	}
	if _, err := write(leased(ctx, "none"), content, "c", nil); status.Code(err) != codes.NotFound {
		t.Errorf("a write under no lease: %v", err)
	}
	_, err = leases.Delete(ctx, &leasesapi.DeleteRequest{ID: "flat", Sync: true})
	harness.Must(t, err)
	harness.Must(t, d.Holds(0, 0))
	stats, err := fixture.Client(d).GCStats(t.Context())
	if err != nil || stats.Runs == 0 || stats.Failures != 0 || stats.Removed < 4 {
		t.Errorf("%+v %v", stats, err)
	}
	for _, st := range must2(content.ListStatuses(ctx, &contentapi.ListStatusesRequest{}))(t).GetStatuses() {
		_, err := content.Abort(ctx, &contentapi.AbortRequest{Ref: st.GetRef()})
		harness.Must(t, err)
	}
}

// must2 is must for calls with a result.
func must2[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		harness.Must(t, err)
		return v
	}
}

func TestCollect_ObjectsOfCtr_FollowsPublishedRules(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ok := func(args ...string) {
		t.Helper()
		stdout, stderr, code := harness.Ctr(t, d.Address, args...)
		if code != 0 {
			t.Fatalf("ctr %q: code %d, %q, %q\n%s", args, code, stdout, stderr, d.Log())
		}
	}
	const name = "docker.io/library/busybox:latest"
	ok("images", "import", "--no-unpack", "--index-name", name, harness.BusyboxArchive(t))
	d.Cleat("run", "--rm", name, "true") // unpacks it
	if f := d.GC(); strings.Contains(kinds(f), "snapshot") {
		t.Errorf("collected %+v", f)
	}
	harness.Must(t, d.Holds(4, 1)) // includes the index of the archive
	ok("run", "-d", "--fifo-dir", t.TempDir(), name, "c", "sleep", "1000")
	ok("images", "rm", "--sync", name)
	harness.Must(t, d.Holds(0, 2))
	d.GC()
	d.Status("c", "running")
	ok("tasks", "kill", "--signal", "SIGKILL", "c")
	d.Status("c", "stopped")
	ok("tasks", "delete", "--force", "c")
	ok("containers", "delete", "c")
	d.GC()
	harness.Must(t, d.Holds(0, 0))

	blob := filepath.Join(t.TempDir(), "blob")
	harness.Must(t, os.WriteFile(blob, []byte("kept by a label"), 0o600))
	sum := digest.FromString("kept by a label").String()
	in, err := os.Open(blob)
	harness.Must(t, err)
	defer in.Close()
	ctx, conn := fixture.GRPC(d)
	content := contentapi.NewContentClient(conn)
	_, err = write(ctx, content, "kept by a label", map[string]string{"containerd.io/gc.root": "1"})
	harness.Must(t, err)
	ok("leases", "create", "--id", "mine")
	ok("content", "label", sum, "x=y")
	if f := d.GC(); len(f.Freed) != 0 {
		t.Errorf("collected %+v", f)
	}
	ok("content", "label", sum, "containerd.io/gc.root=")
	ok("leases", "delete", "--sync", "mine")
	harness.Must(t, d.Holds(0, 0))
}
