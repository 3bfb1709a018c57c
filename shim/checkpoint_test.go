package shim_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/runcopts"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// criuStandIn is a `criu` in PATH, and an OCI runtime that restores a container as if it had used it: from its
// beginning, if the image's directory has a file of the name pages.
func criuStandIn(t *testing.T) (runtime *types.Any) {
	t.Helper()
	binary, err := exec.LookPath("runc")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := `#!/bin/sh
for a in "$@"; do
	case $next in image) image=$a;; pid) pid=$a;; root) root=$a;; bundle) bundle=$a;; esac
	next=
	case $a in
	restore) verb=$a;;
	--image-path) next=image;; --pid-file) next=pid;; --root) next=root;; --bundle) next=bundle;;
	esac
	id=$a
done
[ "$verb" = restore ] || exec ` + binary + ` "$@"
[ -f "$image/pages" ] || exit 9
exec ` + binary + ` --root "$root" run --detach --bundle "$bundle" --pid-file "$pid" "$id"
`
	for name, text := range map[string]string{"criu": "#!/bin/sh\n", "runtime": script} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return optionsAny(t, &runcopts.Options{BinaryName: filepath.Join(dir, "runtime")})
}

func TestRestore(t *testing.T) {
	ctx := within(t)
	runtime := criuStandIn(t)
	d := newDaemon(t)
	s := launch(t, d, "restored", args("sh", "-c", "echo up; exec sleep 1000"))
	image := t.TempDir()
	req := s.request()
	req.Options, req.Checkpoint, req.Stdout = runtime, image, s.fifo("out")
	out := s.collect(req.Stdout)
	if resp := must[task.CreateTaskResponse](ctx, s, "Create", req); resp.Pid != 0 {
		t.Errorf("pid %d before the start", resp.Pid)
	}
	// A concurrent reader of the state must not interfere.
	stop := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = call[task.StateResponse](ctx, s, "State", &task.StateRequest{Id: s.id})
				_, _ = call[task.PidsResponse](ctx, s, "Pids", &task.PidsRequest{Id: s.id})
			}
		}
	})
	if _, err := call[task.StartResponse](ctx, s, "Start", &task.StartRequest{Id: s.id}); err == nil {
		t.Error("it is restored from nothing")
	}
	if st := must[task.StateResponse](ctx, s, "State", &task.StateRequest{Id: s.id}); st.Status != types.Status_CREATED {
		t.Errorf("after a start that failed it is %s", st.Status)
	}
	if err := os.WriteFile(filepath.Join(image, "pages"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pid := must[task.StartResponse](ctx, s, "Start", &task.StartRequest{Id: s.id}).Pid
	close(stop)
	looking.Wait()
	if st := must[task.StateResponse](ctx, s, "State", &task.StateRequest{Id: s.id}); pid == 0 || st.Pid != pid || st.Status != types.Status_RUNNING {
		t.Errorf("restored as %d, state %+v", pid, st)
	}
	for cmdline := ""; !strings.HasPrefix(cmdline, "sleep\x00"); { // it has written its output by then
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || ctx.Err() != nil {
			t.Fatalf("the restored process is %q: %v", cmdline, errors.Join(err, ctx.Err()))
		}
		cmdline = string(data)
	}
	s.kill9()
	s.adopt() // as any other
	must[types.Empty](ctx, s, "Kill", &task.KillRequest{Id: s.id, Signal: 9})
	if code := s.wait(); code != 137 {
		t.Errorf("exit %d", code)
	}
	if text := receive(ctx, t, out); text != "up\n" {
		t.Errorf("output %q", text)
	}
	s.remove()
}

func TestDelete_NotRestored(t *testing.T) {
	ctx := within(t)
	runtime := criuStandIn(t)
	s := launch(t, newDaemon(t), "unrestored", args("sleep", "1000"))
	req := s.request()
	req.Options, req.Checkpoint = runtime, t.TempDir()
	must[task.CreateTaskResponse](ctx, s, "Create", req)
	must[task.DeleteResponse](ctx, s, "Delete", &task.DeleteRequest{Id: s.id})
	if _, err := call[task.StateResponse](ctx, s, "State", &task.StateRequest{Id: s.id}); !errdefs.IsNotFound(err) {
		t.Errorf("state after delete: %v", err)
	}
}

func TestRestore_InvalidRequest_Fails(t *testing.T) {
	ctx := within(t)
	s := launch(t, newDaemon(t), "refused", args("true"))
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for from, class := range map[string]func(error) bool{
		"relative": errdefs.IsInvalidArgument, "/nonexistent/image": errdefs.IsNotFound, file: errdefs.IsInvalidArgument,
	} {
		req := s.request()
		req.Checkpoint = from
		if _, err := call[task.CreateTaskResponse](ctx, s, "Create", req); !class(err) {
			t.Errorf("from %s: %v", from, err)
		}
	}
}
