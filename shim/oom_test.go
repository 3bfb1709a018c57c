package shim_test

import (
	"context"
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

// greedy returns a container whose program allocates all available memory, by `tail /dev/zero`, with a limit of
// 16 MiB.
func greedy(program func(spec map[string]any)) func(spec map[string]any) {
	return func(spec map[string]any) {
		program(spec)
		spec["linux"].(map[string]any)["resources"] = map[string]any{
			"memory": map[string]any{"limit": 16 << 20}, "devices": []any{map[string]any{"allow": true, "access": "rwm"}},
		}
		spec["mounts"] = append(spec["mounts"].([]any), map[string]any{
			"destination": "/dev/zero", "type": "bind", "source": "/dev/zero", "options": []string{"bind"},
		})
	}
}

// expectOOMKill waits for a greedy container's end, which must be published and recorded as an OOM kill.
func (s *shimUnder) expectOOMKill(ctx context.Context) {
	s.t.Helper()
	if code := s.wait(); code != 137 {
		s.t.Errorf("exit %d", code)
	}
	s.remove()
	s.daemon.await(ctx, s.t, "delete")
	if got, want := s.daemon.topics(s.t), []string{"create", "start", "oom", "exit oom 137", "delete"}; !slices.Equal(got, want) {
		s.t.Errorf("events %q, want %q", got, want)
	}
	if rec, err := exitrecord.Read(s.bundle); err != nil || !rec.OOM {
		s.t.Errorf("record %+v, %v", rec, err)
	}
}

// lateRuntime is runc that reports a container it has run only when its init is dead.
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

// The event precedes the exit, even if the init is dead before its cgroup can be looked up.
func TestOOM(t *testing.T) {
	for _, how := range []string{"create", "run", "run, reported late"} {
		t.Run(how, func(t *testing.T) {
			ctx := within(t)
			d := newDaemon(t)
			s := launch(t, d, "oom", greedy(args("tail", "/dev/zero")))
			req := s.request()
			if how == "run, reported late" {
				req.Options = lateRuntime(t, d)
			}
			if how == "create" {
				s.run(req)
			} else if _, err := rpc.Call[shimapi.RunResponse](ctx, s.client, shimapi.Service, "Run", &shimapi.RunRequest{Create: req}); err != nil {
				t.Fatal(err)
			}
			s.expectOOMKill(ctx)
		})
	}
}
