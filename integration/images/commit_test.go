package images

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cleatproject/cleat/integration/harness"
)

// changing is a script that changes files of a container.
const changing = `echo new > /data/new; rm /etc/group; chmod 700 /tmp; ln -s new /data/link; echo more >> /etc/passwd; rm -r /root; mkdir /root; echo x > /root/y`

// changed is a script that checks the result of changing.
const changed = `cat /data/new /data/link /root/y; test ! -e /etc/group && tail -n 1 /etc/passwd; stat -c %a /tmp`

func TestCommit_RunningAndStopped(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	base, _, _ := d.ImageDocuments("busybox")
	d.Cleat("run", "-d", "--name", "runs", "busybox", "sh", "-c", changing+"; touch /ready; i=0; while :; do i=$((i+1)); echo $i > /tmp/count; mkdir -p /tmp/d; echo > /tmp/d/x; rm -r /tmp/d; done")
	d.Cleat("run", "--name", "ended", "busybox", "sh", "-c", changing)
	d.Ready("runs")
	for i, args := range [][]string{
		{"runs", "made"},
		{"ended", "made"},
		{"--pause=false", "runs", "made"},
		{"--compression", "zstd", "ended", "made"},
		{"--compression", "uncompressed", "ended", "made"},
		{"--compression", "gzip", "--compression-level", "9", "ended", "made"},
	} {
		args = append([]string{"commit", "--author", "A. Uthor", "-m", "why", "-c", "ENV A=B PATH=$PATH:/x", "-c", `CMD ["sh","-c","` + changed + `; echo $A $PATH"]`}, args...)
		out := d.Cleat(args...)
		m, cfg, digest := d.ImageDocuments("made")
		if out != "docker.io/library/made:latest@"+digest {
			t.Errorf("%q: %q", args, out)
		}
		if len(m.Layers) != 2 || m.Layers[0].Digest != base.Layers[0].Digest || len(cfg.RootFS.DiffIDs) != 2 {
			t.Errorf("%q: layers %v", args, m.Layers)
		}
		if h := cfg.History; len(h) != 1 || h[0].Comment != "why" || h[0].Author != "A. Uthor" || !strings.HasPrefix(h[0].CreatedBy, "sh -c") || cfg.Author != "A. Uthor" {
			t.Errorf("%q: history %+v", args, h)
		}
		if out := d.Cleat("run", "--rm", "made"); out != "new\nnew\nx\nmore\n700\nB /bin:/x" {
			t.Errorf("%q: %q", args, out)
		}
		if i == 0 {
			roundTrip(d, "made", digest)
		}
		d.Cleat("image", "rm", "made")
	}
	count := d.Cleat("exec", "runs", "cat", "/tmp/count")
	d.Eventually("the container still runs", func() error {
		if d.Cleat("exec", "runs", "cat", "/tmp/count") == count {
			return errors.New("no new output")
		}
		return nil
	})
	// A container paused by the user stays paused.
	d.Cleat("pause", "runs")
	d.Cleat("commit", "runs", "made")
	if s := d.All()["runs"].Status; s != "paused" {
		t.Errorf("status %s", s)
	}
	d.Cleat("resume", "runs")
	d.Cleat("rm", "-f", "runs", "ended")
	commitAgain(d)
	d.Cleat("image", "prune", "--all")
	d.Eventually("nothing is left", func() error {
		return errors.Join(harness.Empty(d.Root+"/content/blobs/sha256", 1), harness.Empty(d.Root+"/snapshots/overlayfs", 1))
	})
}

// commitAgain commits a container of a committed image under another name.
func commitAgain(d *harness.Daemon) {
	d.T.Helper()
	d.Cleat("run", "--name", "second", "made", "sh", "-c", "echo 2 > /data/second")
	d.Cleat("image", "tag", "made", "other")
	d.Cleat("image", "rm", "made")
	d.Cleat("commit", "second", "third")
	if out := d.Cleat("run", "--rm", "third", "cat", "/data/second", "/data/new"); out != "2\nnew" {
		d.T.Errorf("%q", out)
	}
	d.Cleat("rm", "second")
}

// roundTrip lets other programs read an image, unpack it and return it.
func roundTrip(d *harness.Daemon, name, digest string) {
	d.T.Helper()
	dir := d.T.TempDir()
	d.Cleat("image", "export", "-o", filepath.Join(dir, "a.tar"), name)
	harness.Tool(d.T, dir, "skopeo", "--insecure-policy", "copy", "--preserve-digests", "oci-archive:a.tar:latest", "oci:layout:x")
	harness.Tool(d.T, dir, "umoci", "unpack", "--image", "layout:x", "unpacked")
	if got, err := os.ReadFile(filepath.Join(dir, "unpacked", "rootfs", "data", "new")); err != nil || string(got) != "new\n" {
		d.T.Errorf("umoci has %q, %v", got, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "unpacked", "rootfs", "etc", "group")); err == nil {
		d.T.Error("umoci has a removed file")
	}
	harness.Tool(d.T, dir, "skopeo", "--insecure-policy", "copy", "--preserve-digests", "oci:layout:x", "oci-archive:back.tar:back:1")
	d.Cleat("image", "import", filepath.Join(dir, "back.tar"))
	if _, _, got := d.ImageDocuments("back:1"); got != digest {
		d.T.Errorf("returned as %s, want %s", got, digest)
	}
	d.Cleat("image", "rm", "back:1")
}

func TestCommit_SameContents_SameDigest(t *testing.T) {
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("run", "--name", "c", "busybox", "sh", "-c", changing)
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	digests := make(map[string]bool)
	for range 3 {
		d.Cleat("commit", "c", "made")
		_, cfg, digest := d.ImageDocuments("made")
		digests[digest] = true
		if !cfg.Created.Equal(time.Unix(1700000000, 0)) {
			t.Errorf("created at %v", cfg.Created)
		}
		d.Cleat("image", "rm", "made")
	}
	if len(digests) != 1 {
		t.Errorf("%v", digests)
	}
	d.Cleat("rm", "c")
}

func TestCommit_InvalidRequest_IsRefused(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	root := t.TempDir()
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"no container":      {[]string{"nosuch", "x"}, "nosuch"},
		"no name":           {[]string{"c", "A//b"}, "hint:"},
		"a name by digest":  {[]string{"c", "x@sha256:" + strings.Repeat("0", 64)}, "digest"},
		"no instruction":    {[]string{"-c", "RUN rm", "c", "x"}, "WORKDIR"},
		"a bad port":        {[]string{"-c", "EXPOSE 0", "c", "x"}, "PORT"},
		"a bad command":     {[]string{"-c", "CMD [", "c", "x"}, "JSON"},
		"no compression":    {[]string{"--compression", "xz", "c", "x"}, "zstd"},
		"no level":          {[]string{"--compression-level", "10", "c", "x"}, "1 to 9"},
		"no time":           {[]string{"--created", "soon", "c", "x"}, "1970"},
		"one argument":      {[]string{"c"}, "CONTAINER IMAGE"},
		"a bad environment": {[]string{"-c", "ENV =x", "c", "x"}, "NAME=VALUE"},
	} {
		_, stderr, code := d.Try(append([]string{"commit"}, c.args...)...)
		if code != 1 || !strings.Contains(stderr, c.says) || !strings.HasPrefix(stderr, "cleat: ") {
			t.Errorf("%s: %d, %s", name, code, stderr)
		}
	}
	harness.Must(t, os.MkdirAll(filepath.Join(root, "bin"), 0o755))
	bin, err := os.ReadFile("/bin/busybox")
	harness.Must(t, err)
	harness.Must(t, os.WriteFile(filepath.Join(root, "bin", "sleep"), bin, 0o755))
	d.Cleat("run", "-d", "--name", "dir", "--rootfs", root, "/bin/sleep", "1000")
	if _, stderr, code := d.Try("commit", "dir", "x"); code != 1 || !strings.Contains(stderr, "directory of the host") {
		t.Errorf("commit of a container with a rootfs directory: %d, %s", code, stderr)
	}
	d.Cleat("rm", "-f", "dir")
	// Without its image a container has no layers to extend.
	d.Cleat("image", "rm", "busybox")
	if _, stderr, code := d.Try("commit", "c", "x"); code != 1 || !strings.Contains(stderr, "pull or import the image again") {
		t.Errorf("commit without the image: %d, %s", code, stderr)
	}
	if s := d.All()["c"].Status; s != "running" {
		t.Errorf("status %s", s)
	}
	if list := d.Cleat("image", "ls", "-q"); list != "" {
		t.Errorf("images %q", list)
	}
	d.Cleat("rm", "-f", "c")
}

// heavy starts a container with enough changes for a slow commit.
func heavy(d *harness.Daemon) {
	d.T.Helper()
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sh", "-c", "dd if=/dev/urandom of=/data/big bs=1M count=48 2>/dev/null; touch /ready; exec sleep 1000")
	d.Ready("c")
}

// objects counts the objects of the daemon.
func objects(d *harness.Daemon) string {
	d.T.Helper()
	blobs, err := filepath.Glob(filepath.Join(d.Root, "content", "blobs", "sha256", "*"))
	harness.Must(d.T, err)
	snapshots, err := filepath.Glob(filepath.Join(d.Root, "snapshots", "overlayfs", "*"))
	harness.Must(d.T, err)
	return fmt.Sprintf("%d blobs, %d snapshots", len(blobs), len(snapshots))
}

func TestCommit_CancelledAtAnyMoment(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			d := harness.Start(t)
			heavy(d)
			before := objects(d)
			d.SweepWrites(harness.Size(10, 60), []string{d.Root}, func(_ int, at *harness.Interruption) (done bool) {
				made := 0
				cmd := d.Command("commit", "c", "made")
				at.Run(cmd, harness.Signal(cmd, sig))
				_ = d.Ended(cmd, sig) // cancelled, or complete
				// The daemon may see the cancellation a moment later, after it froze the container.
				d.Eventually("the container runs", func() error {
					if out, stderr, code := d.Try("exec", "c", "echo", "well"); code != 0 || out != "well\n" {
						return fmt.Errorf("code %d, %q, %s", code, out, stderr)
					}
					return nil
				})
				d.Eventually("nothing is left", func() error {
					made += removed(d, "made") // the last step may have been in progress
					if got := objects(d); got != before {
						return fmt.Errorf("%s, before: %s", got, before)
					}
					return harness.Empty(filepath.Join(d.Root, "content", "ingest"), 1)
				})
				return made > 0
			})
			d.Status("c", "running")
			d.Cleat("rm", "-f", "c")
		})
	}
}

// removed removes an image if it exists, and returns how many it removed.
func removed(d *harness.Daemon, name string) int {
	d.T.Helper()
	if !slices.Contains(strings.Fields(d.Cleat("image", "ls", "-q")), "docker.io/library/"+name+":latest") {
		return 0
	}
	d.Cleat("image", "rm", name)
	return 1
}

func TestCommit_DaemonKilled_LeavesNothing(t *testing.T) {
	release := filepath.Join(t.TempDir(), "go")
	harness.OCIWrapper(t, fmt.Sprintf(`if [ "$verb" = resume ]; then while ! [ -e %s ]; do sleep 0.05; done; fi`, release))
	d := harness.Start(t)
	heavy(d)
	cmd := d.Command("commit", "c", "made")
	harness.Must(t, cmd.Start())
	d.Eventually("the container is frozen", func() error {
		if s := d.All()["c"].Status; s != "paused" {
			return errors.New(s)
		}
		return nil
	})
	d.Kill9()
	harness.Must(t, os.WriteFile(release, nil, 0o600))
	if err := cmd.Wait(); err == nil {
		t.Error("the interrupted commit succeeded")
	}
	d.Begin()
	d.Eventually("the container runs", func() error {
		if s := d.All()["c"].Status; s != "running" {
			return errors.New(s)
		}
		return nil
	})
	d.Eventually("the mark is removed", func() error {
		out, err := exec.Command("ctr", "--address", d.Address, "-n", "default", "containers", "info", "c").CombinedOutput()
		if err == nil && strings.Contains(string(out), "cleat.io/frozen") {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	d.Cleat("commit", "c", "made")
	d.Cleat("rm", "-f", "c")
	d.Cleat("image", "prune", "--all")
	d.Cleat("gc")
	d.Eventually("nothing is left", func() error {
		return errors.Join(harness.Empty(d.Root+"/content/blobs/sha256", 1), harness.Empty(d.Root+"/snapshots/overlayfs", 1))
	})
}
