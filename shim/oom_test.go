package shim_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cleatproject/cleat/internal/exitrecord"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/runcopts"
	"github.com/cleatproject/cleat/proto/shimapi"
	"github.com/cleatproject/cleat/proto/types"
)

// greedy makes a container that takes all the memory there is, and may have 16 MiB.
func greedy(spec map[string]any) {
	args("tail", "/dev/zero")(spec)
	spec["linux"].(map[string]any)["resources"] = map[string]any{
		"memory": map[string]any{"limit": 16 << 20}, "devices": []any{map[string]any{"allow": true, "access": "rwm"}},
	}
	spec["mounts"] = append(spec["mounts"].([]any), map[string]any{
		"destination": "/dev/zero", "type": "bind", "source": "/dev/zero", "options": []string{"bind"},
	})
}

// lateRuntime is runc that tells of a container it has run only when its init is dead.
func lateRuntime(t *testing.T, d *daemon) *types.Any {
	t.Helper()
	script := filepath.Join(d.state, "late")
	text := `#!/bin/busybox sh
runc "$@" || exit
for a; do
	[ "$last" = --pid-file ] && pid=$a
	last=$a
done
case " $* " in *" run "*) while kill -0 "$(cat "$pid")" 2>/dev/null; do :; done;; esac
`
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return optionsAny(t, &runcopts.Options{BinaryName: script})
}

// Line 9: the event comes, before the exit; also where the init is dead before anybody can see its cgroup.
func TestOOM(t *testing.T) {
	for _, how := range []string{"create", "run", "run, told late"} {
		t.Run(how, func(t *testing.T) {
			ctx := within(t)
			d := newDaemon(t)
			s := launch(t, d, "oom", greedy)
			req := s.request()
			if how == "run, told late" {
				req.Options = lateRuntime(t, d)
			}
			if how == "create" {
				s.run(req)
			} else if _, err := rpc.Call[shimapi.RunResponse](ctx, s.client, shimapi.Service, "Run", &shimapi.RunRequest{Create: req}); err != nil {
				t.Fatal(err)
			}
			if code := s.wait(); code != 137 {
				t.Errorf("exit %d", code)
			}
			s.remove()
			d.await(ctx, t, "delete")
			if got, want := d.topics(t), []string{"create", "start", "oom", "exit oom 137", "delete"}; !slices.Equal(got, want) {
				t.Errorf("events %q, want %q", got, want)
			}
			if rec, err := exitrecord.Read(s.bundle); err != nil || !rec.OOM {
				t.Errorf("record %+v, %v", rec, err)
			}
		})
	}
}
