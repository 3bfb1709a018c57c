package shim

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	runc "github.com/containerd/go-runc"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/runcopts"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/reaper"
	"github.com/cleatproject/cleat/shim/stdio"
)

// standIn returns an OCI runtime that is a shell script.
func standIn(t *testing.T, script string) *ociRuntime {
	t.Helper()
	bundle := t.TempDir()
	binary := filepath.Join(t.TempDir(), "runtime")
	if err := os.WriteFile(binary, []byte("#!/bin/busybox sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	r := reaper.New()
	m := newMonitor(r, []string{"PATH=" + os.Getenv("PATH"), "GOMAXPROCS=1", "CLEAT_ADOPT=1", "NOTIFY_SOCKET=/x", "KEPT=yes"})
	before := runc.Monitor
	runc.Monitor = m
	t.Cleanup(func() {
		runc.Monitor = before
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return &ociRuntime{monitor: m, binary: binary, root: "/root", bundle: bundle}
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func TestInvocations_Arguments(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	r := standIn(t, `
printf '%s\n' "$@" > args
pwd > dir
env > env
while [ $# -gt 0 ]; do [ "$1" = --process ] && cp "$2" process; shift; done
cat > stdin
`)
	r.systemdCgroup = true
	c := &container{id: "c", bundle: r.bundle, runtime: r}
	console, err := stdio.ListenConsole(filepath.Join(t.TempDir(), "tty.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = console.Close() }() // its directory is removed
	opts := &runcopts.Options{NoPivotRoot: true, NoNewKeyring: true}
	limit := int64(7)
	with := func(call launchCall) func(context.Context, *runc.Runc) error {
		return func(ctx context.Context, rt *runc.Runc) error { return call(ctx, rt, processIO{}, console) }
	}
	for want, call := range map[string]func(context.Context, *runc.Runc) error{
		"create --bundle BUNDLE --pid-file BUNDLE/init.pid --console-socket tty.sock --no-pivot --no-new-keyring c": with(c.launchCall("create", opts)),
		"run --bundle BUNDLE --pid-file BUNDLE/init.pid --console-socket tty.sock --no-pivot --no-new-keyring --detach c": with(
			c.launchCall("run", opts)),
		"start c": func(ctx context.Context, rt *runc.Runc) error { return rt.Start(ctx, "c") },
		"pause c": func(ctx context.Context, rt *runc.Runc) error { return rt.Pause(ctx, "c") },
		"delete --force c": func(ctx context.Context, rt *runc.Runc) error {
			return rt.Delete(ctx, "c", &runc.DeleteOpts{Force: true})
		},
		"kill --all c 15": func(ctx context.Context, rt *runc.Runc) error {
			return rt.Kill(ctx, "c", 15, &runc.KillOpts{All: true})
		},
		"update --resources=- c": func(ctx context.Context, rt *runc.Runc) error {
			return rt.Update(ctx, "c", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}})
		},
		"checkpoint --image-path /image --work-path /work --parent-path /parent --tcp-established --ext-unix-sk --shell-job " +
			"--file-locks --manage-cgroups-mode soft --empty-ns network --leave-running c": func(ctx context.Context, rt *runc.Runc) error {
			o, actions := checkpointOpts(&task.CheckpointTaskRequest{Path: "/image"}, &runcopts.CheckpointOptions{
				WorkPath: "/work", ParentPath: "/parent", CgroupsMode: "soft", EmptyNamespaces: []string{"network"},
				OpenTcp: true, ExternalUnixSockets: true, Terminal: true, FileLocks: true,
			})
			return rt.Checkpoint(ctx, "c", o, actions...)
		},
		"restore --image-path /image --work-path BUNDLE/criu --detach --pid-file BUNDLE/init.pid --no-pivot --bundle BUNDLE c": func(
			ctx context.Context, rt *runc.Runc,
		) error {
			_, err := rt.Restore(ctx, "c", c.bundle, restoreOpts("/image", c, opts))
			return err
		},
	} {
		verb, _, _ := strings.Cut(want, " ")
		if err := r.run(t.Context(), verb, call); err != nil {
			t.Errorf("%s: %v", verb, err)
			continue
		}
		got := lines(t, filepath.Join(r.bundle, "args"))
		global := []string{"--root", "/root", "--log", got[3], "--log-format", "json", "--systemd-cgroup"}
		if all := append(global, strings.Fields(strings.ReplaceAll(want, "BUNDLE", r.bundle))...); !slices.Equal(got, all) {
			t.Errorf("%s: arguments %q, want %q", verb, got, all)
		}
	}
	if dir := lines(t, filepath.Join(r.bundle, "dir")); dir[0] != r.bundle {
		t.Errorf("working directory %s", dir)
	}
	for _, v := range lines(t, filepath.Join(r.bundle, "env")) {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "PATH", "KEPT", "PWD", "SHLVL", "OLDPWD":
		default:
			t.Errorf("the runtime has %s in its environment", v)
		}
	}
	if left, err := filepath.Glob(filepath.Join(r.bundle, ".runtime*")); err != nil || len(left) > 0 {
		t.Errorf("logs left: %q, %v", left, err)
	}
}

func TestExec_PassesProcessSpec(t *testing.T) {
	transient := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", transient)
	r := standIn(t, `
while [ $# -gt 0 ]; do [ "$1" = --process ] && { echo "$2" > path; cp "$2" process; }; shift; done
`)
	in := `{"terminal":false,"user":{"uid":1,"gid":2,"umask":18,"additionalGids":[3]},"args":["a","<&>"],"env":["A=b"],"cwd":"/w",` +
		`"capabilities":{"bounding":["CAP_KILL"]},"rlimits":[{"type":"RLIMIT_CORE","hard":1,"soft":0}],"noNewPrivileges":true,` +
		`"apparmorProfile":"p","oomScoreAdj":5,"scheduler":{"policy":"SCHED_BATCH","nice":3},"selinuxLabel":"l",` +
		`"ioPriority":{"class":"IOPRIO_CLASS_IDLE","priority":0},"execCPUAffinity":{"initial":"0","final":"0"}}`
	spec, err := execSpec([]byte(in), true)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{spec: spec, size: terminalSize{width: 100, height: 40}}
	sized, _ := p.sizedSpec()
	err = r.run(t.Context(), "exec", func(ctx context.Context, rt *runc.Runc) error {
		return rt.Exec(ctx, "c", sized, &runc.ExecOpts{Detach: true})
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(r.bundle, "process"))
	if err != nil {
		t.Fatal(err)
	}
	var got, want map[string]any
	if err := errors.Join(json.Unmarshal(data, &got), json.Unmarshal([]byte(in), &want)); err != nil {
		t.Fatal(err)
	}
	want["terminal"], want["consoleSize"] = true, map[string]any{"width": 100., "height": 40.}
	if g, w := canonical(t, got), canonical(t, want); g != w {
		t.Errorf("the runtime got\n%s, want\n%s", g, w)
	}
	if path := lines(t, filepath.Join(r.bundle, "path"))[0]; filepath.Dir(path) != transient {
		t.Errorf("the specification was at %s", path)
	}
	if left, err := os.ReadDir(transient); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// canonical returns v as JSON with sorted members, without those that are zero.
func canonical(t *testing.T, v map[string]any) string {
	t.Helper()
	delete(v["ioPriority"].(map[string]any), "priority")
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestExecSpec_UnknownMember_Fails(t *testing.T) {
	for in, want := range map[string]string{
		`{"args":["a"],"newer":1}`:        `"newer"`,
		`{"user":{"uid":0,"unheard":[]}}`: `"unheard"`,
		`{"args":["a"]} {}`:               "more than one JSON value",
		`{"args":`:                        "unexpected EOF",
		``:                                "EOF",
	} {
		if _, err := execSpec([]byte(in), false); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", in, err, want)
		}
	}
}

func TestRuntimeErrors(t *testing.T) {
	start := func(ctx context.Context, rt *runc.Runc) error { return rt.Start(ctx, "c") }
	log := `while [ "$1" != --log ]; do shift; done; echo '{"level":"warning","msg":"w"}' > "$2"; `
	for name, c := range map[string]struct {
		script, text string
		class        error
	}{
		"success":   {`exit 0`, "", nil},
		"status":    {`echo noise; echo noise >&2; exit 9`, "OCI runtime start failed: exit status 9", errdefs.ErrUnknown},
		"signal":    {`kill -9 $$`, "OCI runtime start failed: exit status 137", errdefs.ErrUnknown},
		"no error":  {log + `exit 3`, "OCI runtime start failed: exit status 3", errdefs.ErrUnknown},
		"logged":    {log + `echo '{"level":"error","msg":"container does not exist"}' >> "$2"; exit 1`, "OCI runtime start failed: container does not exist", errdefs.ErrNotFound},
		"malformed": {log + `echo '{' >> "$2"; exit 1`, "OCI runtime start failed: exit status 1", errdefs.ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			err := standIn(t, c.script).run(t.Context(), "start", start)
			if c.text == "" && err == nil {
				return
			}
			if err == nil || err.Error() != c.text || !errors.Is(err, c.class) {
				t.Errorf("got %v, want %q", err, c.text)
			}
		})
	}
	t.Run("missing", func(t *testing.T) {
		r := standIn(t, "")
		r.binary = "/nonexistent/runtime"
		for name, call := range map[string]func(context.Context, *runc.Runc) error{
			"start":  start,
			"create": func(ctx context.Context, rt *runc.Runc) error { return rt.Create(ctx, "c", r.bundle, nil) },
			"exec":   func(ctx context.Context, rt *runc.Runc) error { return rt.Exec(ctx, "c", specs.Process{}, nil) },
		} {
			err := r.run(t.Context(), name, call)
			if reason.Of(err) != reason.RuntimeMissing || !errors.Is(err, os.ErrNotExist) ||
				!strings.HasPrefix(err.Error(), "OCI runtime "+name+" failed: no OCI runtime") {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// The runtime may finish after its caller has gone: its outcome counts.
func TestRuntime_FinishesWithinGrace(t *testing.T) {
	for text, script := range map[string]string{"success": "", "exit status 5": "exit 5"} {
		t.Run(text, func(t *testing.T) {
			r := standIn(t, "touch begun; until [ -e go ]; do sleep 0.01; done\n"+script)
			ctx, cancel := context.WithCancel(within(t))
			done := make(chan error, 1)
			go func() {
				done <- r.run(ctx, "start", func(ctx context.Context, rt *runc.Runc) error { return rt.Start(ctx, "c") })
			}()
			awaitFile(t, filepath.Join(r.bundle, "begun"))
			cancel()
			if err := os.WriteFile(filepath.Join(r.bundle, "go"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := <-done; script == "" && err != nil || script != "" && (err == nil || !strings.HasSuffix(err.Error(), text)) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestRuntime_KilledAfterGrace(t *testing.T) {
	r := standIn(t, "echo $$ > pid.tmp; mv pid.tmp pid; exec sleep 1000")
	r.grace = time.Millisecond
	ctx, cancel := context.WithCancel(within(t))
	done := make(chan error, 1)
	go func() {
		done <- r.run(ctx, "kill", func(ctx context.Context, rt *runc.Runc) error { return rt.Kill(ctx, "c", 9, nil) })
	}()
	awaitFile(t, filepath.Join(r.bundle, "pid"))
	cancel()
	err := <-done
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "killed after 1ms") {
		t.Errorf("got %v", err)
	}
	pid, err := strconv.Atoi(lines(t, filepath.Join(r.bundle, "pid"))[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the runtime still runs: %v", err)
	}
	if err := r.run(ctx, "kill", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that has gone: %v", err)
	}
}

// A process that the runtime leaves behind may keep its output open; no invocation waits for it.
func TestRuntime_OutputLeftOpen_DelaysNothing(t *testing.T) {
	r := standIn(t, `sleep 1000 & echo $! > left; echo noise >&2; echo '{"id":"c","status":"paused"}'`)
	c := &container{id: "c", runtime: r}
	capture := r.monitor.Capture()
	defer capture.Close()
	if err := reaper.SetSubreaper(); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"start": func() error {
			return r.run(within(t), "start", func(ctx context.Context, rt *runc.Runc) error { return rt.Start(ctx, "c") })
		},
		"state": func() error {
			status, err := c.runtimeStatus(within(t))
			if err == nil && status != "paused" {
				t.Errorf("status %q", status)
			}
			return err
		},
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		pid, err := strconv.Atoi(lines(t, filepath.Join(r.bundle, "left"))[0])
		if err != nil {
			t.Fatal(err)
		}
		child, err := capture.Claim(pid)
		if err != nil {
			t.Fatalf("%s: the process left behind: %v", name, err)
		}
		if err := kill(child); err != nil {
			t.Error(err)
		}
		if _, err := child.Wait(within(t)); err != nil {
			t.Error(err)
		}
	}
}

func awaitFile(t *testing.T, path string) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx := within(t); ; {
		if _, err := os.Stat(path); err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s does not appear", path)
		}
	}
}
