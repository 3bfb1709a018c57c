package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// upload is a write stream of a content client.
type upload struct {
	t      *testing.T
	stream contentapi.Content_WriteClient
}

func uploadBlobs(d *harness.Daemon, ref string, total int) (*upload, *contentapi.WriteContentResponse) {
	d.T.Helper()
	ctx, conn := fixture.GRPC(d)
	stream, err := contentapi.NewContentClient(conn).Write(ctx)
	harness.Must(d.T, err)
	u := &upload{d.T, stream}
	return u, u.send(&contentapi.WriteContentRequest{Action: contentapi.WriteAction_STAT, Ref: ref, Total: int64(total)})
}

func (u *upload) send(req *contentapi.WriteContentRequest) *contentapi.WriteContentResponse {
	u.t.Helper()
	harness.Must(u.t, u.stream.Send(req))
	resp, err := u.stream.Recv()
	harness.Must(u.t, err)
	return resp
}

// A daemon killed during an upload knows the offset and the digest after its restart, and accepts the rest. A killed
// client costs its connection only.
func TestUpload_DaemonKilled_Resumes(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	data := make([]byte, 72<<20+123)
	_, err := rand.Read(data)
	harness.Must(t, err)
	u, _ := uploadBlobs(d, "layer", len(data))
	done := 0
	for _, cut := range []int{66 << 20, 70 << 20} {
		for done < cut {
			n := min(1<<20, cut-done)
			done = int(u.send(&contentapi.WriteContentRequest{Action: contentapi.WriteAction_WRITE, Offset: int64(done), Data: data[done : done+n]}).Offset)
		}
		d.Restart()
		var st *contentapi.WriteContentResponse
		u, st = uploadBlobs(d, "layer", 0)
		if st.Offset != int64(cut) || st.Total != int64(len(data)) || st.Digest != digest.FromBytes(data[:cut]).String() {
			t.Fatalf("after %d bytes: %+v", cut, st)
		}
	}
	want := digest.FromBytes(data)
	resp := u.send(&contentapi.WriteContentRequest{
		Action: contentapi.WriteAction_COMMIT, Offset: int64(done), Data: data[done:], Expected: want.String(),
		Labels: map[string]string{"containerd.io/gc.root": "the test"},
	})
	if resp.Digest != want.String() {
		t.Errorf("committed %+v", resp)
	}
	d.Restart()
	out, stderr, code := harness.Ctr(t, d.Address, "content", "get", want.String())
	if code != 0 || out != string(data) {
		t.Errorf("read %d bytes, %s", len(out), stderr)
	}
	_, stderr, code = harness.Ctr(t, d.Address, "content", "rm", want.String())
	if code != 0 {
		t.Error(stderr)
	}
	harness.Must(t, harness.Empty(filepath.Join(d.Root, "content", "blobs", "sha256"), 1))
}

// The next start drops the ingests of an import that died with the daemon, and keeps other ingests.
func TestImport_DaemonKilled_DropsIngests(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	u, _ := uploadBlobs(d, "kept", 0)
	u.send(&contentapi.WriteContentRequest{Action: contentapi.WriteAction_WRITE, Data: []byte("half")})
	data := harness.BigArchive(t, 20<<20)
	cmd := d.Command("image", "import", "--name", "big", "-")
	in, err := cmd.StdinPipe()
	harness.Must(t, err)
	harness.Must(t, cmd.Start())
	_, err = in.Write(data[:len(data)/2])
	harness.Must(t, err)
	d.Eventually("the archive is read", func() error {
		entries, err := os.ReadDir(filepath.Join(d.Root, "content", "ingest"))
		if err == nil && len(entries) < 2 {
			err = fmt.Errorf("%d ingests", len(entries))
		}
		return err
	})
	d.Kill9()
	if err := cmd.Wait(); err == nil {
		t.Error("the interrupted import succeeded")
	}
	d.Begin()
	ctx, conn := fixture.GRPC(d)
	client := contentapi.NewContentClient(conn)
	list, err := client.ListStatuses(ctx, &contentapi.ListStatusesRequest{})
	harness.Must(t, err)
	if len(list.Statuses) != 1 || list.Statuses[0].Ref != "kept" || list.Statuses[0].Offset != 4 {
		t.Errorf("left: %v", list.Statuses)
	}
	_, err = client.Abort(ctx, &contentapi.AbortRequest{Ref: "kept"})
	harness.Must(t, err)
	harness.Must(t, harness.Empty(filepath.Join(d.Root, "content", "ingest"), 1))
}

// Debian's ctr manages content of cleatd as it does with its own daemon.
func TestContent_ByCtr(t *testing.T) {
	t.Parallel()
	d := harness.StartUncollected(t) // ctr writes without a lease, so the content is garbage
	run := func(input string, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), harness.Limit)
		defer cancel()
		cmd := exec.CommandContext(ctx, "ctr", append([]string{"--address", d.Address, "content"}, args...)...)
		cmd.Stdin = strings.NewReader(input)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("ctr content %q: %v, %s", args, err, stderr.String())
		}
		return string(out)
	}
	text := strings.Repeat("hello ", 500_000)
	want := digest.FromString(text)
	run(text, "ingest", "--expected-digest", want.String(), "--expected-size", fmt.Sprint(len(text)), "ref")
	if got := run("", "get", want.String()); got != text {
		t.Errorf("got %d bytes", len(got))
	}
	run("", "label", want.String(), "colour=red")
	if out := run("", "ls"); !strings.Contains(out, want.String()) || !strings.Contains(out, "colour=red") {
		t.Errorf("ls: %s", out)
	}
	if out := run("", "ls", "labels.colour==blue"); strings.Contains(out, want.String()) {
		t.Errorf("filtered ls: %s", out)
	}
	u, _ := uploadBlobs(d, "going-on", 0)
	u.send(&contentapi.WriteContentRequest{Action: contentapi.WriteAction_WRITE, Data: []byte("half")})
	if out := run("", "active"); !strings.Contains(out, "going-on") {
		t.Errorf("active: %s", out)
	}
	if out := run("", "active", "^nothing"); strings.Contains(out, "going-on") {
		t.Errorf("filtered active: %s", out)
	}
	other, conn := fixture.GRPC(d)
	second, err := contentapi.NewContentClient(conn).Write(other)
	harness.Must(t, err)
	harness.Must(t, second.Send(&contentapi.WriteContentRequest{Action: contentapi.WriteAction_STAT, Ref: "going-on"}))
	if _, err := second.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "locked") {
		t.Errorf("a second writer: %v", err)
	}
	_, err = contentapi.NewContentClient(conn).Abort(other, &contentapi.AbortRequest{Ref: "going-on"})
	harness.Must(t, err)
	run("", "rm", want.String())
	if out := run("", "ls", "-q"); out != "" {
		t.Errorf("left: %s", out)
	}
}
