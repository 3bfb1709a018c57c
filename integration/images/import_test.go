package images

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

func TestImport_ArchivesOfPublicTools(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	for kind, path := range harness.ToolArchives(t) {
		for way, run := range map[string]func(name string) (*exec.Cmd, io.Closer){
			"a file": func(name string) (*exec.Cmd, io.Closer) {
				return d.Command("image", "import", "--name", name, path), nil
			},
			"a file as stdin": func(name string) (*exec.Cmd, io.Closer) {
				cmd := d.Command("image", "import", "--name", name, "-")
				f, err := os.Open(path)
				harness.Must(t, err)
				cmd.Stdin = f
				return cmd, f
			},
			"a pipe as stdin": func(name string) (*exec.Cmd, io.Closer) {
				cmd := d.Command("image", "import", "--name", name, "-")
				data, err := os.ReadFile(path)
				harness.Must(t, err)
				cmd.Stdin = bytes.NewReader(data)
				return cmd, nil
			},
			"a FIFO by name": func(name string) (*exec.Cmd, io.Closer) {
				fifo := filepath.Join(t.TempDir(), "fifo")
				harness.Must(t, syscall.Mkfifo(fifo, 0o600))
				cat := exec.CommandContext(t.Context(), "sh", "-c", `cat "$0" > "$1"`, path, fifo)
				harness.Must(t, cat.Start())
				return d.Command("image", "import", "--name", name, fifo), waiter{cat}
			},
		} {
			cmd, closer := run("example.com/x:1")
			if out, err := cmd.CombinedOutput(); err != nil || string(out) != "example.com/x:1\n" {
				t.Fatalf("%s, %s: %v, %s\n%s", kind, way, err, out, d.Log())
			}
			if closer != nil {
				harness.Must(t, closer.Close())
			}
			if out := d.Cleat("run", "--rm", "example.com/x:1", "echo", "runs"); out != "runs" {
				t.Errorf("%s, %s: %q", kind, way, out)
			}
			d.Cleat("image", "rm", "example.com/x:1")
			d.NoRemains(kind)
		}
	}
}

// waiter waits for a command on Close.
type waiter struct{ *exec.Cmd }

func (w waiter) Close() error { return w.Wait() }

// A frozen daemon, such as one on a slow disk, delays the client that sends an archive.
func TestImport_DaemonFrozen_Waits(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	data := harness.BigArchive(t, 200<<20)
	cmd := d.Command("image", "import", "--name", "big", "-")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	in, err := cmd.StdinPipe()
	harness.Must(t, err)
	harness.Must(t, cmd.Start())
	_, err = in.Write(data[:len(data)/4])
	harness.Must(t, err)
	thaw := harness.Freeze(t, d.Cmd.Process.Pid)
	written := make(chan error, 1)
	go func() {
		_, err := in.Write(data[len(data)/4:])
		written <- errors.Join(err, in.Close())
	}()
	select {
	case err := <-written:
		t.Errorf("the client sent the rest of the archive: %v", err)
		written <- nil
	case <-time.After(3 * time.Second): // longer than a stream of ttrpc bears
	}
	thaw()
	harness.Must(t, <-written)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v, %s\n%s", err, out.String(), d.Log())
	}
	if out := d.Cleat("run", "--rm", "big", "stat", "-c", "%s", "/data/noise"); out != fmt.Sprint(200<<20) {
		t.Errorf("size of the file: %s", out)
	}
}

// ingests returns an error unless an ingest is in progress.
func ingests(d *harness.Daemon) error {
	entries, err := os.ReadDir(filepath.Join(d.Root, "content", "ingest"))
	if err == nil && len(entries) == 0 {
		return errors.New("no ingest")
	}
	return err
}

// imported returns an error if a blob is stored.
func imported(d *harness.Daemon) error {
	return errors.Join(
		harness.Empty(filepath.Join(d.Root, "content", "ingest"), 1),
		harness.Empty(filepath.Join(d.Root, "content", "blobs", "sha256"), 1),
		harness.Empty(filepath.Join(d.Root, "snapshots", "overlayfs"), 1),
	)
}

func TestImport_ClientKilled_LeavesNothing(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	data := harness.BigArchive(t, 20<<20)
	path := filepath.Join(t.TempDir(), "big.tar")
	harness.Must(t, os.WriteFile(path, data, 0o600))
	for name, sig := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "interrupted": syscall.SIGINT} {
		cmd := d.Command("image", "import", "--name", "big", "-")
		in, err := cmd.StdinPipe()
		harness.Must(t, err)
		harness.Must(t, cmd.Start())
		_, err = in.Write(data[:len(data)/2])
		harness.Must(t, err)
		d.Eventually("the archive is read", func() error { return ingests(d) })
		harness.Must(t, cmd.Process.Signal(sig))
		if err := cmd.Wait(); err == nil {
			t.Errorf("%s: the import succeeded", name)
		}
		d.Eventually(name+": nothing is stored", func() error { return imported(d) })
		harness.Must(t, harness.Empty(filepath.Join(d.State, "fifo"), 1))
		d.NoRemains(name)
	}
	// The daemon reads the file itself, and must stop as well.
	d.SweepWrites(harness.Moments(), []string{d.Root}, func(_ int, at *harness.Interruption) (done bool) {
		cmd := d.Command("image", "import", "--name", "big", path)
		at.Run(cmd, harness.Signal(cmd, syscall.SIGKILL))
		_ = d.Ended(cmd, syscall.SIGKILL)
		d.Eventually("nothing is stored", func() error {
			done = removed(d, "big") > 0 || done // it completed before the signal
			return imported(d)
		})
		d.NoRemains("a killed import of a file")
		return done
	})
}

// If the daemon dies, the import fails at once, also while the client waits for input.
func TestImport_DaemonKilled_FailsAtOnce(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	cmd := d.Command("image", "import", "--name", "big", "-")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	harness.Must(t, err)
	harness.Must(t, cmd.Start())
	_, err = in.Write(busybox(t)[:100])
	harness.Must(t, err)
	d.Eventually("the daemon reads the archive", func() error {
		list, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", d.Cmd.Process.Pid))
		harness.Must(t, err)
		for _, fd := range list {
			if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, filepath.Join(d.State, "fifo")) {
				return nil
			}
		}
		return errors.New("the FIFO has no reader")
	})
	d.Kill9()
	if err := cmd.Wait(); err == nil || stderr.Len() == 0 {
		t.Errorf("%v, %q", err, stderr.String())
	}
	d.Begin()
	d.Eventually("nothing is stored", func() error { return imported(d) })
	d.NoRemains("an import with a killed daemon")
}

// An invalid archive is refused before its end, and its writer is released.
func TestImport_InvalidArchive_IsRefusedEarly(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	for name, c := range map[string]struct {
		input []byte // the input does not end
		args  []string
		says  string
	}{
		"no archive":          {bytes.Repeat([]byte("nonsense"), 1<<10), nil, "archive"},
		"unknown platform":    {nil, []string{"--platform", "a/b/c/d/e"}, "a/b/c/d/e"},
		"unknown snapshotter": {busybox(t), []string{"--snapshotter", "nosuch"}, "nosuch"},
	} {
		cmd := d.Command(append([]string{"image", "import", "--name", "x", "-"}, c.args...)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		in, err := cmd.StdinPipe()
		harness.Must(t, err)
		harness.Must(t, cmd.Start())
		if _, err := in.Write(c.input); err != nil && !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
		if name == "unknown snapshotter" {
			harness.Must(t, in.Close()) // detected at the end only
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case err := <-done:
			if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(stderr.String(), c.says) {
				t.Errorf("%s: %v, %q", name, err, stderr.String())
			}
		case <-time.After(harness.Limit):
			_ = cmd.Process.Kill() // the test fails anyway
			t.Fatalf("%s: the client hangs\n%s", name, d.Log())
		}
		d.Eventually(name+": nothing is stored", func() error { return imported(d) })
		d.NoRemains(name)
	}
}

func busybox(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile(harness.BusyboxArchive(t))
	harness.Must(t, err)
	return data
}

func TestImport_ByPath(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	bring := func(m *fixture.Mover, path string) error {
		t.Helper()
		return m.Transfer(m.Ctx, &transferapi.TransferRequest{
			Source:      fixture.Own(t, cleatapi.ArchiveFileType, &cleatapi.ArchiveFile{Path: path}),
			Destination: fixture.Own(t, cleatapi.ImageStoreType, &cleatapi.ImageStore{Names: []string{"box"}}),
		})
	}
	for transport, m := range fixture.Movers(d, "default") {
		harness.Must(t, bring(m, harness.BusyboxArchive(t)))
		if out := d.Cleat("run", "--rm", "box", "echo", "yes"); out != "yes" {
			t.Errorf("%s: printed %q", transport, out)
		}
		d.Cleat("image", "rm", "box")
		for path, code := range map[string]codes.Code{
			"":              codes.InvalidArgument,
			"/dev/zero":     codes.InvalidArgument,
			"relative":      codes.InvalidArgument,
			d.Root:          codes.InvalidArgument,
			"/no/such/file": codes.NotFound,
		} {
			if err := bring(m, path); status.Code(err) != code {
				t.Errorf("%q over %s: %v", path, transport, err)
			}
		}
	}
	d.Eventually("nothing is stored", func() error { return imported(d) })
}

// A failed reader fails the import, however much the daemon has received.
func TestImport_ReaderFails(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	c := fixture.Client(d)
	data := busybox(t)
	broken := errors.New("disk on fire")
	for _, part := range []int{0, 512, len(data) - 1024, len(data)} {
		r, w := io.Pipe()
		go func() {
			_, _ = w.Write(data[:part])  // the reader may have gone
			_ = w.CloseWithError(broken) // never fails
		}()
		if _, err := c.ImportImage(t.Context(), r, client.ImportOptions{Name: "x"}); !errors.Is(err, broken) {
			t.Errorf("after %d bytes: %v", part, err)
		}
		d.Eventually("nothing is stored", func() error { return imported(d) })
		d.NoRemains("a broken import")
	}
}
