package cli

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

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/runcopts"
)

// A missing runc is a failure of the host and not of the image.
func TestRun_WithoutOCIRuntime_ExitsWith125(t *testing.T) {
	bin := t.TempDir()
	for _, name := range []string{"mount", "umount"} {
		path, err := exec.LookPath(name)
		harness.Must(t, err)
		harness.Must(t, os.Symlink(path, filepath.Join(bin, name)))
	}
	t.Setenv("PATH", bin)
	d := harness.Start(t)
	d.Busybox()
	_, stderr, code := d.Try("run", "--rm", "busybox", "true")
	if code != 125 || !strings.Contains(stderr, "no OCI runtime runc on this host") || !strings.Contains(stderr, "\nhint: install runc") {
		t.Errorf("code %d, %s", code, stderr)
	}
}

// Failures of cleat and its host exit with 125, those in the container with 126 and 127.
func TestExitCodes_RunAndExec(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("run", "--detach", "--name", "one", "busybox", "sleep", "1000")
	for _, c := range []struct {
		args []string
		code int
		hint string
	}{
		{[]string{"busybox", "nope"}, 127, "must exist in the image"},
		{[]string{"busybox", "/nope"}, 127, "must exist in the image"},
		{[]string{"busybox", "/etc"}, 126, "executable file"},
		{[]string{"--user", "nosuch", "busybox", "true"}, 125, "a number need not"},
		{[]string{"--volume", "/no/such/source:/x", "busybox", "true"}, 125, ""},
		{[]string{"--runtime", "io.containerd.nope.v2", "busybox", "true"}, 125, "install the shim"},
		{[]string{"--snapshotter", "nope", "busybox", "true"}, 125, "cleat doctor"},
		{[]string{"--detach", "--log", "binary:///no/such/logger", "busybox", "true"}, 125, "the logger of --log"},
		{[]string{"--name", "one", "busybox", "true"}, 125, "cleat rm one"},
		{[]string{"no/such:image", "true"}, 125, "cleat image ls"},
	} {
		_, stderr, code := d.Try(append([]string{"run", "--rm"}, c.args...)...)
		harness.CheckHint(t, fmt.Sprintf("run %q", c.args), stderr, code, c.code, c.hint)
	}
	for _, c := range []struct {
		args []string
		code int
		hint string
	}{
		{[]string{"one", "nope"}, 127, "must exist in the image"},
		{[]string{"one", "/etc"}, 126, "executable file"},
		{[]string{"--workdir", "/nope", "one", "true"}, 126, "working directory"},
		{[]string{"--user", "nosuch", "one", "true"}, 125, "a number need not"},
		{[]string{"two", "true"}, 125, "cleat ps --all"},
	} {
		_, stderr, code := d.Try(append([]string{"exec"}, c.args...)...)
		harness.CheckHint(t, fmt.Sprintf("exec %q", c.args), stderr, code, c.code, c.hint)
	}
	d.Cleat("rm", "--force", "one")
}

func TestDeniedSocket_HintConcernsSocket(t *testing.T) {
	t.Parallel()
	base, err := os.MkdirTemp("", "cleat-it")
	harness.Must(t, err)
	harness.Must(t, os.Chmod(base, 0o711))
	harness.Must(t, os.Chmod(harness.Binaries(), 0o711))
	d := harness.StartAt(t, base)
	var stderr bytes.Buffer
	cmd := d.Command("ps")
	cmd.Dir, cmd.Stderr = "/", &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
	err = cmd.Run()
	if err == nil || !strings.Contains(stderr.String(), "permission denied") || !strings.Contains(stderr.String(), "hint: the socket is for root and the group") {
		t.Errorf("%v: %s", err, stderr.String())
	}
}

// The daemon is killed, or stopped, at each step of the removal of a container that has ended; it completes the
// removal at its next start. The command exits with the container's code.
func TestRunRemove_DaemonEndsAtEachStep_ReturnsCodeOfContainer(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		reached := 0
		for n := 1; removalEndedAt(d, n, sig); n++ {
			reached = n
		}
		if reached < 5 {
			t.Errorf("%s: the removal has only %d steps", sig, reached)
		}
	}
	d.Eventually("every container is removed", func() error {
		if left := d.Cleat("ps", "--all", "--quiet"); left != "" {
			return fmt.Errorf("left: %s", left)
		}
		return nil
	})
}

// removalEndedAt runs a container with --rm and signals the daemon at the nth step after the container's end. It
// reports whether there were n steps.
func removalEndedAt(d *harness.Daemon, n int, sig syscall.Signal) (reached bool) {
	d.T.Helper()
	name := fmt.Sprintf("rm%d-%d", sig, n)
	cmd := d.Command("run", "--rm", "--interactive", "--name", name, "busybox", "sh", "-c", "echo begun; read line; exit 7")
	stdin, err := cmd.StdinPipe()
	harness.Must(d.T, err)
	stdout, err := cmd.StdoutPipe()
	harness.Must(d.T, err)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	harness.Must(d.T, cmd.Start())
	_, err = io.ReadFull(stdout, make([]byte, len("begun\n")))
	harness.Must(d.T, err)
	killed := make(chan struct{})
	pid := d.Cmd.Process.Pid
	s := harness.WatchSteps(d.T, n, func() {
		_ = unix.Kill(pid, sig) // this test's own process, which is not reaped yet
		close(killed)
	}, d.Watched()...)
	harness.Must(d.T, stdin.Close())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-killed:
		<-d.Exited
		d.Begin()
		err = <-ended
		reached = true
	case err = <-ended:
	}
	steps := s.Stop(d.T)
	select {
	case <-killed: // by a step after the answer
		if !reached {
			<-d.Exited
			d.Begin()
		}
		reached = true
	default:
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 || stderr.Len() > 0 {
		d.T.Errorf("%s at step %d of %q: %v: %s", sig, n, steps, err, stderr.String())
	}
	return reached
}

// The output of an OCI runtime is mapped to a reason, for every runtime and shim.
func TestReasons_EveryRuntime(t *testing.T) {
	t.Parallel()
	runsc, err := exec.LookPath("runsc")
	harness.Must(t, err)
	binary := filepath.Join(t.TempDir(), "runsc")
	harness.Must(t, os.WriteFile(binary, []byte("#!/bin/sh\nexec "+runsc+` --platform=ptrace --ignore-cgroups --network=none "$@"`+"\n"), 0o755))
	gvisor, err := rpc.Marshal(&runcopts.Options{BinaryName: binary})
	harness.Must(t, err)
	shim, err := exec.LookPath("containerd-shim-runc-v2")
	harness.Must(t, err)
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	containers, tasks := containersapi.NewContainersClient(conn), tasksapi.NewTasksClient(conn)
	for name, runtime := range map[string]*containersapi.Container_Runtime{
		"runc":         {Name: "io.containerd.runc.v2"},
		"runsc":        {Name: "io.containerd.runc.v2", Options: &anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: gvisor}},
		"foreign shim": {Name: shim},
	} {
		for program, want := range map[string]reason.Reason{
			"nope": reason.CommandNotFound, "/nope": reason.CommandNotFound, "/etc": reason.CommandNotExecutable,
		} {
			id := "c" + strings.Trim(strings.ReplaceAll(name+program, " ", ""), "/")
			id = strings.ReplaceAll(id, "/", "-")
			_, err := containers.Create(ctx, &containersapi.CreateContainerRequest{Container: &containersapi.Container{
				ID: id, Spec: fixture.APISpec(t, fixture.BusyboxSpec(t, program)), Runtime: runtime,
			}})
			harness.Must(t, err)
			_, err = tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: id, Rootfs: fixture.Rootfs(d)})
			if err == nil {
				_, err = tasks.Start(ctx, &tasksapi.StartRequest{ContainerID: id})
				_, derr := tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id})
				harness.Must(t, derr)
			}
			if got := reason.Of(rpc.FromWire(ctx, err)); got != want {
				t.Errorf("%s, %s: reason %q, want %q: %v", name, program, got, want, err)
			}
			_, err = containers.Delete(ctx, &containersapi.DeleteContainerRequest{ID: id})
			harness.Must(t, err)
		}
	}
}
