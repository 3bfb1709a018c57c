package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"

	"github.com/cleatproject/cleat/client"
)

// result is the outcome of a run of the program.
type result struct {
	code     int
	out, err string
}

// invoke runs the program with stdin from a file.
func invoke(t *testing.T, env map[string]string, stdin string, args ...string) result {
	t.Helper()
	dir := t.TempDir()
	open := func(name, content string) *os.File {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	a := &app{
		stdin: open("in", stdin), stdout: open("out", ""), stderr: open("err", ""),
		env: func(name string) string { return env[name] },
	}
	code := a.run(t.Context(), args)
	read := func(f *os.File) string {
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return result{code, read(a.stdout), read(a.stderr)}
}

func TestRun_ShowsOutputAndExitsWithCode(t *testing.T) {
	d := newDaemon(t)
	d.output, d.status = "all fast\n", 7
	got := invoke(t, d.env(), "", "run", "--rm", "-e", "A=b", "-m", "64m", "--storage-size", "1.5g", "busybox", "echo", "-n", "x")
	if got.code != 7 || got.out != "all fast\n" || got.err != "" {
		t.Fatalf("%+v", got)
	}
	r := d.last(t)
	if !r.request.AutoRemove || r.request.Image != "busybox" || r.request.User != "www" || r.request.Log {
		t.Errorf("request %+v", r.request)
	}
	if want := []string{"/entry", "echo", "-n", "x"}; !reflect.DeepEqual(r.spec.Process.Args, want) {
		t.Errorf("args %q, want %q", r.spec.Process.Args, want)
	}
	if env := strings.Join(r.spec.Process.Env, " "); !strings.Contains(env, "A=b") || !strings.Contains(env, "HOSTNAME="+r.request.Id[:12]) {
		t.Errorf("environment %s", env)
	}
	if *r.spec.Linux.Resources.Memory.Limit != 64<<20 {
		t.Errorf("memory %d", *r.spec.Linux.Resources.Memory.Limit)
	}
	if r.request.StorageSize != 3<<29 {
		t.Errorf("storage size %d", r.request.StorageSize)
	}
	if want := map[string]string{stopSignalLabel: "SIGQUIT"}; !reflect.DeepEqual(r.request.Labels, want) {
		t.Errorf("labels %v, want %v: those of the image must not be taken", r.request.Labels, want)
	}
	d.nothingLeft(t)
}

func TestRun_SendsInput(t *testing.T) {
	d := newDaemon(t)
	got := invoke(t, d.env(), "from here\n", "run", "--rm", "-i", "busybox")
	if got.code != 0 || got.out != "from here\n" {
		t.Errorf("%+v", got)
	}
	d.nothingLeft(t)
}

func TestRun_Detached(t *testing.T) {
	d := newDaemon(t)
	for name, tt := range map[string]struct {
		flags  []string
		log    bool
		stdout string
	}{
		"default":       {nil, true, ""},
		"without log":   {[]string{"--log", "none"}, false, ""},
		"to a file":     {[]string{"--log", "file:///tmp/x"}, false, "file:///tmp/x"},
		"with terminal": {[]string{"-it"}, false, "/stdout"},
	} {
		t.Run(name, func(t *testing.T) {
			got := invoke(t, d.env(), "", append(append([]string{"run", "-d", "--name", "one"}, tt.flags...), "busybox")...)
			if got.code != 0 || got.out != "one\n" {
				t.Fatalf("%+v", got)
			}
			r := d.last(t).request
			if r.Log != tt.log || !strings.HasSuffix(r.Stdout, tt.stdout) || (tt.stdout == "") != (r.Stdout == "") {
				t.Errorf("request %+v", r)
			}
		})
	}
	if err := d.collect(); err != nil {
		t.Error(err)
	}
	d.nothingLeft(t)
}

func TestRun_Failures(t *testing.T) {
	d := newDaemon(t)
	for name, tt := range map[string]struct {
		err  error
		args []string
		code int
		hint string
	}{
		"missing program":        {fmt.Errorf("run x: %w", client.ReasonCommandNotFound), nil, 127, "must exist in the image"},
		"not a program":          {fmt.Errorf("run x: %w", client.ReasonCommandNotExecutable), nil, 126, "executable file"},
		"no directory":           {fmt.Errorf("run x: %w", client.ReasonDirectoryNotFound), nil, 126, "working directory"},
		"text of a runtime":      {fmt.Errorf(`exec: "x": executable file not found in $PATH: %w`, errdefs.ErrNotFound), nil, 125, ""},
		"no runtime":             {fmt.Errorf("run x: %w", client.ReasonRuntimeMissing), nil, 125, "install runc"},
		"no source of a mount":   {fmt.Errorf(`error mounting "/x" to rootfs: %w`, client.ReasonRuntimeFailed), nil, 125, ""},
		"no such user":           {fmt.Errorf("run x: user web: %w", client.ReasonUserNotFound), nil, 125, "a number need not"},
		"no such namespace":      {fmt.Errorf(`list: namespace "x": %w`, client.ReasonNamespaceNotFound), nil, 125, "cleat namespace ls"},
		"name taken":             {fmt.Errorf("container one: %w", client.ReasonContainerExists), []string{"--name", "one"}, 125, "cleat rm one"},
		"another":                {fmt.Errorf("disk full"), nil, 125, ""},
		"unknown image":          {nil, []string{"--platform", "none"}, 125, "cleat image ls"},
		"bad flag":               {nil, []string{"--memory", "lots"}, 125, ""},
		"no storage":             {nil, []string{"--storage-size", "0"}, 125, ""},
		"bad storage size":       {nil, []string{"--storage-size", "lots"}, 125, ""},
		"empty storage size":     {nil, []string{"--storage-size", ""}, 125, ""},
		"bad label":              {nil, []string{"--label", "=x"}, 125, ""},
		"bad log":                {nil, []string{"--log", "printer"}, 125, ""},
		"terminal without stdin": {nil, []string{"-it"}, 125, "leave -t out"},
	} {
		t.Run(name, func(t *testing.T) {
			d.failRun = tt.err
			got := invoke(t, d.env(), "", append(append([]string{"run"}, tt.args...), "busybox")...)
			lines := strings.Split(strings.TrimSuffix(got.err, "\n"), "\n")
			if got.code != tt.code || !strings.HasPrefix(lines[0], "cleat: ") || !strings.Contains(got.err, tt.hint) {
				t.Errorf("%+v, want code %d and hint %q", got, tt.code, tt.hint)
			}
			if want := 1 + min(len(tt.hint), 1); len(lines) != want {
				t.Errorf("%d lines, want %d: %s", len(lines), want, got.err)
			}
			d.nothingLeft(t)
		})
	}
}

func TestExec(t *testing.T) {
	d := newDaemon(t)
	d.output, d.status = "inside\n", 3
	got := invoke(t, d.env(), "", "exec", "-w", "/tmp", "-e", "X=1", "one", "ls", "-l")
	if got.code != 3 || got.out != "inside\n" || got.err != "" {
		t.Fatalf("%+v", got)
	}
	if p := d.exec; !reflect.DeepEqual(p.Args, []string{"ls", "-l"}) || p.Cwd != "/tmp" || !reflect.DeepEqual(p.Env, []string{"PATH=/bin", "X=1"}) {
		t.Errorf("process %+v", p)
	}
	if !d.execDeleted {
		t.Error("the exec'd process was not deleted")
	}
	d.nothingLeft(t)
}

func TestLists_Formats(t *testing.T) {
	d := newDaemon(t)
	if got := invoke(t, d.env(), "", "ps"); !strings.Contains(got.out, "aaaaaaaaaaaa  ") || !strings.Contains(got.out, "running") {
		t.Errorf("%+v", got)
	}
	if got := invoke(t, d.env(), "", "ps", "-aq"); got.out != strings.Repeat("a", 64)+"\none\n" {
		t.Errorf("%+v", got)
	}
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"ps", "--format", "json"}, []string{"id", "namespace", "image", "pid", "status", "exit_code", "created", "started", "finished"}},
		{[]string{"shim", "ls", "--format", "json"}, []string{"id", "namespace", "pid", "runtime", "version", "socket", "state"}},
		{[]string{"image", "ls", "--format=json"}, []string{"name", "digest", "size"}},
	} {
		got := invoke(t, d.env(), "", tt.args...)
		var list []map[string]any
		if err := json.Unmarshal([]byte(got.out), &list); err != nil || len(list) == 0 {
			t.Errorf("%q: %v: %+v", tt.args, err, got)
			continue
		}
		for _, field := range tt.want {
			if _, ok := list[0][field]; !ok {
				t.Errorf("%q: no field %q in %v", tt.args, field, list[0])
			}
		}
	}
	for _, command := range [][]string{{"ps"}, {"version"}, {"namespace", "ls"}, {"events"}, {"stats"}, {"why", "x"}} {
		got := invoke(t, d.env(), "", append(command, "--format", "xml")...)
		if got.code != 1 || got.out != "" || !strings.Contains(got.err, "want table or json") {
			t.Errorf("%s: %+v", command, got)
		}
	}
}

func TestWait_PrintsCodes(t *testing.T) {
	d := newDaemon(t)
	d.status = 5
	if got := invoke(t, d.env(), "", "wait", "one", "aaaa"); got.code != 0 || got.out != "5\n5\n" {
		t.Errorf("%+v", got)
	}
}

func TestShortIDs(t *testing.T) {
	d := newDaemon(t)
	if got := invoke(t, d.env(), "", "pause", "aaaaa"); got.code != 0 || got.out != "aaaaa\n" {
		t.Errorf("%+v", got)
	}
	if got := invoke(t, d.env(), "", "pause", "bbbb", "one"); got.code != 1 || got.out != "one\n" || !strings.Contains(got.err, "hint: cleat ps --all") {
		t.Errorf("%+v", got)
	}
}

func TestRun_InParallel(t *testing.T) {
	d := newDaemon(t)
	d.output = "x"
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got := invoke(t, d.env(), "", "run", "--rm", "busybox"); got.code != 0 || got.out != "x" {
				t.Errorf("%+v", got)
			}
		})
	}
	wg.Wait()
	d.nothingLeft(t)
}

func TestRun_Cancelled_LeavesNothing(t *testing.T) {
	for name, when := range map[string]func(*pretended, *proxy){
		"before the start":    func(d *pretended, p *proxy) { d.beforeRun = func() { p.take(syscall.SIGTERM) } },
		"before its response": func(d *pretended, p *proxy) { d.afterRun = func() { p.take(syscall.SIGTERM) } },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t)
			p, ctx := newProxy(t.Context())
			defer p.close()
			when(d, p)
			r := &runFlags{network: "none", sigProxy: true}
			c, err := client.Dial(ctx, d.address, client.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			run := &runner{runFlags: r, a: &app{stderr: os.Stderr}, c: c, proxy: p}
			fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
			r.declare(fs)
			if err := run.do(ctx, fs, []string{"busybox"}); !errors.Is(err, context.Canceled) {
				t.Errorf("a cancelled run: %v", err)
			}
			if !d.removed() {
				t.Error("the container of a cancelled run was not removed")
			}
			d.nothingLeft(t)
		})
	}
}
