package images

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	"github.com/cleatproject/cleat/mount"
)

// Debian's ctr unpacks by itself, with cleat's snapshots and diff service.
func TestDiff_ByCtr(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ok := func(args ...string) string {
		t.Helper()
		stdout, stderr, code := harness.Ctr(t, d.Address, args...)
		if code != 0 {
			t.Fatalf("ctr %q: %s%s", args, stderr, d.Log())
		}
		return stdout
	}
	top := harness.TarOf(t, []harness.File{{Name: "etc/.wh.group", Mode: 0o644}, {Name: "upper", Mode: 0o600, Body: "x"}})
	path := harness.OCIArchive(t, [][]byte{harness.TarOf(t, harness.BusyboxFiles(t)), top}, harness.BusyboxConfig(), nil)
	ok("images", "import", "--index-name", "docker.io/library/two:latest", path)
	names := strings.Fields(ok("images", "ls", "-q"))
	if len(names) != 1 {
		t.Fatalf("imported %q", names)
	}
	dir, open := harness.Gate(t, 1)
	run := append([]string{"run", "--rm"}, harness.GateMount(dir)...)
	if out, _, code := harness.CtrGated(t, d.Address, open, "xpasswd\n", "", append(run, names[0], "c", "/bin/sh", "-c", "cat /upper; ls /etc"+harness.AtGate)...); out != "xpasswd\n" || code != 0 {
		t.Errorf("the container prints %q, code %d", out, code)
	}
	var chain string
	for line := range strings.Lines(ok("snapshots", "ls")) {
		if f := strings.Fields(line); len(f) == 3 && strings.HasPrefix(f[1], "sha256:") {
			chain = f[0]
		}
	}
	ok("snapshots", "prepare", "work", chain)
	at := t.TempDir()
	shell(t, ok("snapshots", "mounts", at, "work")+"\ncd "+at+"; rm upper; echo new > etc/new; cd /; umount "+at)
	entries := readTar(t, strings.NewReader(ok("snapshots", "diff", "--media-type", ocispec.MediaTypeImageLayer, "work")))
	if got := strings.Join(entries, " "); got != "etc/ etc/new .wh.upper" {
		t.Errorf("diff %q", got)
	}
	zipped, err := archive.Decompress(t.Context(), strings.NewReader(ok("snapshots", "diff", "work", chain)))
	harness.Must(t, err)
	if got := strings.Join(readTar(t, zipped), " "); !strings.Contains(got, ".wh.new") || !strings.Contains(got, "upper") {
		t.Errorf("reverse diff %q", got)
	}
	harness.Must(t, zipped.Close())
	ok("snapshots", "rm", "work")
	ok("images", "rm", "--sync", names[0])
}

func readTar(t *testing.T, r io.Reader) (names []string) {
	t.Helper()
	for tr := tar.NewReader(r); ; {
		hdr, err := tr.Next()
		if err == io.EOF {
			return names
		}
		harness.Must(t, err)
		names = append(names, hdr.Name)
	}
}

// storeBlob puts a blob into the content store and returns its descriptor.
func storeBlob(ctx context.Context, t *testing.T, c contentapi.ContentClient, mediaType string, data []byte) *apitypes.Descriptor {
	t.Helper()
	stream, err := c.Write(ctx)
	harness.Must(t, err)
	d := digest.FromBytes(data)
	harness.Must(t, stream.Send(&contentapi.WriteContentRequest{
		Action: contentapi.WriteAction_COMMIT, Ref: "upload-" + d.Encoded(), Total: int64(len(data)), Expected: d.String(), Data: data,
		Labels: map[string]string{"containerd.io/gc.root": "1"},
	}))
	_, err = stream.Recv()
	if err = errgrpc.ToNative(err); !errdefs.IsAlreadyExists(err) {
		harness.Must(t, err)
	}
	return &apitypes.Descriptor{MediaType: mediaType, Digest: d.String(), Size: int64(len(data))}
}

func TestDiffService_BothTransports(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	raw, err := net.Dial("unix", d.Address+".ttrpc")
	harness.Must(t, err)
	tc := ttrpc.NewClient(raw)
	defer func() { harness.Must(t, tc.Close()) }()
	ctx = ttrpc.WithMetadata(ctx, ttrpc.MD{"containerd-namespace-ttrpc": {"default"}})
	snapshots, blobs := snapshotsapi.NewSnapshotsClient(conn), contentapi.NewContentClient(conn)
	root := map[string]string{"containerd.io/gc.root": "1"}
	plain := harness.TarOf(t, []harness.File{{Name: "a", Mode: 0o644, Body: "text"}, {Name: "d", Dir: true, Mode: 0o755}})
	for name, c := range map[string]diffapi.TTRPCDiffService{
		"grpc": onGRPC{diffapi.NewDiffClient(conn)}, "ttrpc": diffapi.NewTTRPCDiffClient(tc),
	} {
		for suffix, compression := range map[string]archive.Compression{"": "", "+gzip": archive.Gzip, "+zstd": archive.Zstd} {
			var b bytes.Buffer
			w, err := archive.CompressLevel(&b, compression, 0)
			harness.Must(t, err)
			_, err = w.Write(plain)
			harness.Must(t, err)
			harness.Must(t, w.Close())
			mediaType := ocispec.MediaTypeImageLayer + suffix
			key := name + suffix
			p, err := snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: key, Labels: root})
			harness.Must(t, err)
			applied, err := c.Apply(ctx, &diffapi.ApplyRequest{Diff: storeBlob(ctx, t, blobs, mediaType, b.Bytes()), Mounts: p.Mounts, SyncFs: true})
			harness.Must(t, err)
			if a := applied.Applied; a.Digest != digest.FromBytes(plain).String() || a.Size != int64(len(plain)) || a.MediaType != ocispec.MediaTypeImageLayer {
				t.Errorf("%s: applied %v", key, a)
			}
			_, err = snapshots.Commit(ctx, &snapshotsapi.CommitSnapshotRequest{Snapshotter: "overlayfs", Name: "c " + key, Key: key, Labels: root})
			harness.Must(t, err)
			left, err := snapshots.View(ctx, &snapshotsapi.ViewSnapshotRequest{Snapshotter: "overlayfs", Key: "v " + key, Parent: "c " + key, Labels: root})
			harness.Must(t, err)
			right, err := snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: "p " + key, Parent: "c " + key, Labels: root})
			harness.Must(t, err)
			at := t.TempDir()
			m := right.Mounts[0]
			harness.Must(t, mount.All([]mount.Mount{{Type: m.Type, Source: m.Source, Options: m.Options}}, at))
			harness.Must(t, os.WriteFile(filepath.Join(at, "new"), []byte("x"), 0o600))
			harness.Must(t, mount.UnmountAll(at, 0))
			epoch := time.Unix(1_000_000, 0)
			var first *apitypes.Descriptor
			for range 2 { // a second apply succeeds as well
				resp, err := c.Diff(ctx, &diffapi.DiffRequest{
					Left: left.Mounts, Right: right.Mounts, MediaType: mediaType, Ref: "ref", Labels: root, SourceDateEpoch: timestamppb.New(epoch),
				})
				harness.Must(t, err)
				if first == nil {
					first = resp.Diff
				}
				if resp.Diff.Digest != first.Digest || resp.Diff.Size == 0 || resp.Diff.MediaType != mediaType {
					t.Errorf("%s: %v, before %v", key, resp.Diff, first)
				}
			}
			info, err := blobs.Info(ctx, &contentapi.InfoRequest{Digest: first.Digest})
			harness.Must(t, err)
			if l := info.Info.Labels["containerd.io/uncompressed"]; (l != "") != (suffix != "") || info.Info.Labels["containerd.io/gc.root"] != "1" {
				t.Errorf("%s: labels %v", key, info.Info.Labels)
			}
		}
		for what, err := range map[string]error{
			"no mounts":  harness.Second(c.Apply(ctx, &diffapi.ApplyRequest{Diff: storeBlob(ctx, t, blobs, ocispec.MediaTypeImageLayer, plain)})),
			"no layer":   harness.Second(c.Diff(ctx, &diffapi.DiffRequest{MediaType: "text/plain"})),
			"no content": harness.Second(c.Apply(ctx, &diffapi.ApplyRequest{Diff: &apitypes.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString(name).String()}, Mounts: []*apitypes.Mount{{Type: "bind", Source: "/nowhere", Options: []string{"rw"}}}})),
		} {
			if err = errgrpc.ToNative(err); !errdefs.IsInvalidArgument(err) && !errdefs.IsNotImplemented(err) && !errdefs.IsNotFound(err) {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
	}
}

// shell runs a script, which must succeed.
func shell(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.Command("/bin/sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// onGRPC adapts the client of one transport to the interface of the other.
type onGRPC struct{ c diffapi.DiffClient }

func (o onGRPC) Apply(ctx context.Context, req *diffapi.ApplyRequest) (*diffapi.ApplyResponse, error) {
	return o.c.Apply(ctx, req)
}

func (o onGRPC) Diff(ctx context.Context, req *diffapi.DiffRequest) (*diffapi.DiffResponse, error) {
	return o.c.Diff(ctx, req)
}

// Layers that only a stream processor can decode are unpacked, by cleat and over the API.
func TestStreamProcessors(t *testing.T) {
	t.Parallel()
	const secret = "application/vnd.test.layer.v1.tar+rot"
	plain := harness.TarOf(t, harness.BusyboxFiles(t))
	rot := func(data []byte) []byte {
		out := bytes.Clone(data)
		for i := range out {
			out[i] ^= 1 << 7
		}
		return out
	}
	base := t.TempDir()
	program := filepath.Join(base, "rot.sh")
	harness.Must(t, os.WriteFile(program, []byte("#!/bin/sh\nexec /usr/bin/python3 -c 'import sys; sys.stdout.buffer.write(bytes(b ^ 128 for b in sys.stdin.buffer.read()))'\n"), 0o755))
	config := filepath.Join(base, "config.toml")
	harness.Must(t, os.WriteFile(config, []byte(`[stream_processors."test.rot"]
accepts = ["`+secret+`"]
returns = "`+ocispec.MediaTypeImageLayer+`"
path = "`+program+`"
`), 0o600))
	d := harness.Start(t, "--config", config)
	ctx, conn := fixture.GRPC(d)
	snapshots, blobs := snapshotsapi.NewSnapshotsClient(conn), contentapi.NewContentClient(conn)
	p, err := snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: "k", Labels: map[string]string{"containerd.io/gc.root": "1"}})
	harness.Must(t, err)
	resp, err := diffapi.NewDiffClient(conn).Apply(ctx, &diffapi.ApplyRequest{Diff: storeBlob(ctx, t, blobs, secret, rot(plain)), Mounts: p.Mounts})
	harness.Must(t, err)
	if resp.Applied.Digest != digest.FromBytes(plain).String() {
		t.Errorf("applied %v", resp.Applied)
	}
	path := harness.CodedArchive(t, secret, [][]byte{rot(plain)}, [][]byte{plain}, harness.BusyboxConfig(), nil)
	d.Cleat("image", "import", "--name", "busybox", path)
	if out := d.Cleat("run", "--rm", "busybox", "echo", "decoded"); out != "decoded" {
		t.Errorf("the container prints %q", out)
	}
}
