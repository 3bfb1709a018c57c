// Package goclient drives cleatd with containerd's own Go client, as an embedder does who has only changed the path
// of a socket. The files in v2/ are written for the client of containerd 2; ../test.sh turns those that do not begin
// with "two_" into tests of the 1.7 client by its other import paths.
package goclient

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/cleatproject/cleat/integration/harness"
)

// imageName is the name of the test image.
const imageName = "example.test/busybox:1"

// fixture is a daemon, a client of it, and the test image, unpacked.
type fixture struct {
	*testing.T
	daemon *harness.Daemon
	client *containerd.Client
	image  containerd.Image
	ctx    context.Context
}

// start starts a daemon with the test image.
func start(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: t, daemon: harness.Start(t)}
	f.client = f.dial()
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(t.Context(), "tests"), 2*time.Minute)
	t.Cleanup(cancel)
	f.ctx = ctx
	imported, err := f.client.Import(ctx, bytes.NewReader(harness.Image(t, imageName)))
	f.must(err)
	if len(imported) != 1 || imported[0].Name != imageName {
		t.Fatalf("imported %+v, not %s", imported, imageName)
	}
	f.image, err = f.client.GetImage(ctx, imageName)
	f.must(err)
	f.must(f.image.Unpack(ctx, "overlayfs"))
	return f
}

// dial connects a client, which is closed at the end of the test.
func (f *fixture) dial() *containerd.Client {
	f.Helper()
	c, err := containerd.New(f.daemon.Address)
	f.must(err)
	f.Cleanup(func() { f.must(c.Close()) })
	return c
}

// connected waits until the client is connected to a restarted daemon.
func (f *fixture) connected() {
	f.Helper()
	harness.Eventually(f.T, "the client is connected again", func() error {
		_, err := f.client.Version(f.ctx)
		return err
	})
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// container creates a container that runs a command.
func (f *fixture) container(id string, args ...string) containerd.Container {
	f.Helper()
	return f.containerWith(id, oci.WithProcessArgs(args...))
}

// containerWith creates a container with further options of its spec.
func (f *fixture) containerWith(id string, opts ...oci.SpecOpts) containerd.Container {
	f.Helper()
	all := append([]oci.SpecOpts{oci.WithImageConfig(f.image)}, opts...)
	c, err := f.client.NewContainer(f.ctx, id, containerd.WithImage(f.image),
		containerd.WithSnapshotter("overlayfs"), containerd.WithNewSnapshot(id+"-snapshot", f.image), containerd.WithNewSpec(all...))
	f.must(err)
	return c
}

// remove deletes a container with its snapshot.
func (f *fixture) remove(c containerd.Container) {
	f.Helper()
	f.must(c.Delete(f.ctx, containerd.WithSnapshotCleanup))
}

// begin starts a container's task, and returns it with the channel of its exit.
func (f *fixture) begin(c containerd.Container, io cio.Creator) (containerd.Task, <-chan containerd.ExitStatus) {
	f.Helper()
	task, err := c.NewTask(f.ctx, io)
	f.must(err)
	exit, err := task.Wait(f.ctx)
	f.must(err)
	f.must(task.Start(f.ctx))
	return task, exit
}

// code waits for an exit and returns its code.
func (f *fixture) code(exit <-chan containerd.ExitStatus) uint32 {
	f.Helper()
	select {
	case status := <-exit:
		code, at, err := status.Result()
		f.must(err)
		if at.IsZero() || time.Since(at) > time.Hour {
			f.Errorf("exited at %s", at)
		}
		return code
	case <-time.After(harness.Limit):
		f.Fatal("no exit")
		return 0
	}
}

// streams collects the stdio of a process.
type streams struct {
	out, err bytes.Buffer
}

// input is a stdin that reports when a client has copied all of it and the stdin of the process can be closed.
type input struct {
	io.Reader
	ended chan struct{}
}

func newInput(text string) *input { return &input{strings.NewReader(text), make(chan struct{})} }

func (i *input) Read(p []byte) (int, error) {
	n, err := i.Reader.Read(p)
	if err == io.EOF {
		close(i.ended)
	}
	return n, err
}

// creator returns the function that connects a process to the streams.
func (s *streams) creator(f *fixture, in *input, opts ...cio.Opt) cio.Creator {
	var stdin io.Reader // nil means no stdin
	if in != nil {
		stdin = in
	}
	return cio.NewCreator(append([]cio.Opt{cio.WithStreams(stdin, &s.out, &s.err), cio.WithFIFODir(f.TempDir())}, opts...)...)
}

// run runs a command until it exits and returns its output and its code.
func (f *fixture) run(id, stdin string, args ...string) (stdout, stderr string, code uint32) {
	f.Helper()
	c := f.container(id, args...)
	var s streams
	in := newInput(stdin)
	if stdin == "" {
		in = nil
	}
	task, exit := f.begin(c, s.creator(f, in))
	if in != nil {
		<-in.ended
		f.must(task.CloseIO(f.ctx, containerd.WithStdinCloser))
	}
	code = f.code(exit)
	task.IO().Wait()
	status, err := task.Delete(f.ctx)
	f.must(err)
	if status.ExitCode() != code {
		f.Errorf("wait returns code %d, delete %d", code, status.ExitCode())
	}
	f.remove(c)
	return s.out.String(), s.err.String(), code
}
