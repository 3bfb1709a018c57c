package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	contentapi "github.com/containerd/containerd/api/services/content/v1"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// tourStep is one command of the tour.
type tourStep struct {
	args string // of ctr, split at blanks; {x} stands for the tour's value of that name
	in   string
	// until must be in stdout before the step counts, for programs that take time, and for those that exit at once:
	// containerd loses some of their output on a busy machine. says is the same for the end of stderr.
	until, says string
	// differs is the reason why the output may differ, class that of the error's class; the exit code must be equal.
	differs, class string
}

// tour has every sub-command of ctr that works without a network, in an order in which each finds the objects that it
// needs.
func tour() []tourStep {
	const (
		plugins = "the peer has plugins of its own, and cleat's has others"
		order   = "ctr prints labels in a random order"
		random  = "the name of a lease is random"
		missing = "cleat says not found, the peer unknown"
		state   = "cleat says failed precondition, the peer unknown"
		blocks  = "the sizes of directories are those of the file systems' blocks"
	)
	return []tourStep{
		{args: "version", differs: "each prints its own version", class: "ctr warns of another revision than its own"},
		{args: "namespaces create tour a=b"},
		{args: "namespaces create tour"},
		{args: "namespaces label tour a= c=d"},
		{args: "namespaces label made e=f"},
		{args: "namespaces ls", differs: "cleat's default namespace exists from the start"},
		{args: "namespaces ls -q", differs: "cleat's default namespace exists from the start"},
		{args: "namespaces rm made"},
		{args: "namespaces rm never"},
		{args: "-n not/one containers ls"},
		{args: "plugins ls", differs: plugins},
		{args: "plugins ls id==overlayfs"},
		{args: "plugins ls -q type==io.containerd.grpc.v1,id==tasks"},

		{args: "images import --no-unpack --digests --base-name tour.example/base {archive}"},
		{args: "images import --no-unpack --index-name {image} {archive}"},
		{args: "images import --no-unpack {none}"},
		{args: "images ls"},
		{args: "images ls -q"},
		{args: "images ls name~=busybox"},
		{args: "images ls labels.x==y"},
		{args: "images ls name=="},
		{args: "images check"},
		{args: "images check name=={image}"},
		{args: "images label {image} x=y z=w", differs: order},
		{args: "images label {image} z="},
		{args: "images label nothing z="},
		{args: "images label {image} containerd.io/gc.root=no", differs: order},
		{args: "images ls labels.x==y"},
		{args: "images tag {image} tour.example/other:1"},
		{args: "images tag {image} tour.example/other:1"},
		{args: "images tag --force {image} tour.example/other:1"},
		{args: "images tag nothing tour.example/other:2"},
		{args: "images export {out} {image}"},
		{args: "images export {out} nothing"},
		{args: "images rm --sync tour.example/other:1"}, // collects garbage, so that no other collection removes blobs without a reference
		{args: "images rm tour.example/other:1 nothing"},
		{args: "images mount nothing {dir}"},

		{args: "content ls -q"},
		{args: "content ls labels.tour==yes"},
		{args: "content active"},
		{args: "content ingest one", in: "a blob of the tour"},
		{args: "content ingest --expected-size 4 two", in: "a blob of the tour", class: "cleat refuses it as it is written, with out of range, which ctr calls unknown"},
		{args: "content ingest --expected-digest {wrong} three", in: "a blob of the tour"},
		{args: "content get {blob}"},
		{args: "content get {wrong}"},
		{args: "content get nonsense"},
		{args: "content label {blob} tour=yes"},
		{args: "content ls -q labels.tour==yes"},
		{args: "content label {blob} tour="},
		{args: "content label {wrong} tour=yes"},
		{args: "content edit --editor=cat {blob}"},
		{args: "content edit --editor=false {blob}"},
		{args: "content rm {blob}"},
		{args: "content rm {wrong}"},
		{args: "content prune references --dry"},

		{args: "snapshots ls"},
		{args: "snapshots prepare work"},
		{args: "snapshots prepare work"},
		{args: "snapshots prepare work2 nothing"},
		{args: "snapshots mounts {dir} work"},
		{args: "snapshots mounts {dir} nothing"},
		{args: "snapshots info work"},
		{args: "snapshots info nothing"},
		{args: "snapshots commit done work"},
		{args: "snapshots commit done work"},
		{args: "snapshots info done"},
		{args: "snapshots label done a=b", differs: order},
		{args: "snapshots ls"},
		{args: "snapshots prepare --target {dir} next done"},
		{args: "snapshots view see done"},
		{args: "snapshots mounts {dir} see"},
		{args: "snapshots mounts {dir} next"},
		{args: "snapshots view see done"},
		{args: "snapshots commit done2 see"},
		{args: "snapshots tree"},
		{args: "snapshots usage", differs: blocks},
		{args: "snapshots usage -b done", differs: blocks},
		{args: "snapshots usage nothing"},
		{args: "snapshots rm done"},
		{args: "snapshots rm see next"},
		{args: "snapshots rm done"},
		{args: "snapshots rm done"},
		{args: "snapshots --snapshotter nothing ls"},
		{args: "snapshots --snapshotter native prepare work"},
		{args: "snapshots --snapshotter native rm work"},

		{args: "containers ls"},
		{args: "containers create --label l=1 --env A=B --rootfs {rootfs} c1 /bin/sh /run.sh"},
		{args: "containers create --rootfs {rootfs} c1 /bin/true"},
		{args: "containers create --rootfs {rootfs} bad/id /bin/true"},
		{args: "containers create nothing c2 /bin/true"},
		{args: "containers ls"},
		{args: "containers ls -q labels.l==1"},
		{args: "containers label c1 l=2 m=3", differs: order},
		{args: "containers label nothing l=2"},
		{args: "containers info c1", differs: "the spec has paths of the rootfs"},
		{args: "containers info nothing"},
		{args: "tasks ls"},
		{args: "tasks start --fifo-dir {fifos} --detach c1"},
		{args: "tasks start --fifo-dir {fifos} --detach c1"},
		{args: "tasks start --fifo-dir {fifos} nothing"},
		{args: "tasks ls"},
		{args: "tasks ls -q"},
		{args: "tasks ps c1", until: "PID -\nPID -\n"}, // between two sleeps only the shell runs
		{args: "tasks ps nothing"},
		{args: "tasks exec --fifo-dir {fifos} --exec-id e1 c1 /bin/echo in", until: "in\n"},
		{args: "tasks exec --fifo-dir {fifos} --exec-id e2 --cwd /bin --user 1000 c1 /bin/pwd", until: "/bin\n"},
		{args: "tasks exec --fifo-dir {fifos} --exec-id e3 c1 /bin/nothing", class: missing},
		{args: "tasks exec --fifo-dir {fifos} --exec-id e4 c1 /bin/false"},
		{args: "tasks exec --fifo-dir {fifos} --exec-id e5 nothing /bin/true"},
		{args: "tasks pause c1", class: state},
		{args: "tasks ls"},
		{args: "tasks pause c1", class: state},
		{args: "tasks rm c1"},
		{args: "tasks resume c1", class: state},
		{args: "tasks resume c1", class: state},
		{args: "tasks pause nothing"},
		{args: "tasks metrics c1", until: "METRIC"}, // a slow shim is left out
		{args: "tasks metrics --format json c1", until: "{", differs: "the numbers are those of the moment"},
		{args: "tasks metrics nothing"},
		{args: "tasks rm c1"},
		{args: "containers rm c1"},
		{args: "tasks kill --signal SIGUSR1 c1"},
		{args: "tasks kill --signal NONSENSE c1"},
		{args: "tasks kill nothing"},
		{args: "tasks kill --exec-id nothing c1"},
		{args: "tasks kill --all --signal SIGKILL c1"},
		{args: "tasks ls", until: "STOPPED"},
		{args: "tasks kill c1"},
		{args: "tasks pause c1", class: state},
		{args: "tasks exec --fifo-dir {fifos} --exec-id e6 c1 /bin/true", class: state},
		{args: "tasks rm c1"},
		{args: "tasks rm c1"},
		{args: "tasks rm --force c1"},
		{args: "containers rm c1 nothing"},
		{args: "containers ls"},

		{args: "run --rm --fifo-dir {fifos} --rootfs {rootfs} r1 /bin/sh /hello.sh", until: "out\n", says: "err"},
		{args: "run --rm --fifo-dir {fifos} --rootfs --null-io {rootfs} r2 /bin/false"},
		{args: "run --rm --fifo-dir {fifos} --rootfs --read-only {rootfs} r3 /bin/touch /tmp/x", says: "Read-only"},
		{args: "run --rm --fifo-dir {fifos} --rootfs --env A=B --cwd /bin {rootfs} r4 /bin/env", until: "A=B\n"},
		{args: "run --rm --fifo-dir {fifos} --rootfs --memory-limit 33554432 --cpus 0.5 --pid-file {pidfile} {rootfs} r5 /bin/true"},
		{args: "run --rm --fifo-dir {fifos} --rootfs --mount type=bind,src={dir},dst=/data,options=rbind:ro {rootfs} r6 /bin/ls /data", until: "rootfs\n"},
		{args: "run --rm --fifo-dir {fifos} --rootfs --cgroup /cleat-tour/{peer} {rootfs} r7 /bin/true"},
		{args: "run --rm --fifo-dir {fifos} --rootfs --with-ns network:/proc/1/ns/net {rootfs} r8 /bin/true"},
		{args: "run --rm --fifo-dir {fifos} --rootfs {rootfs} r9 /bin/nothing", class: missing},
		{args: "run --rm --fifo-dir {fifos} --rootfs --runtime io.containerd.nothing.v9 {rootfs} r10 /bin/true", class: missing},
		{args: "run --rm --fifo-dir {fifos} nothing r11 /bin/true"},
		{args: "run --rm --fifo-dir {fifos} --rootfs --log-uri file://{log} {rootfs} r12 /bin/echo logged"},
		{args: "run --rm --fifo-dir {fifos} --rootfs --privileged --seccomp --cap-add CAP_SYS_ADMIN {rootfs} r13 /bin/true"},
		{args: "run -d --fifo-dir {fifos} --rootfs --null-io {rootfs} r14 /bin/sleep 1000"},
		{args: "run -d --fifo-dir {fifos} --rootfs --null-io {rootfs} r14 /bin/sleep 1000"},
		{args: "tasks attach nothing"},
		{args: "tasks rm --force r14"},
		{args: "containers rm r14"},
		{args: "tasks ls"},
		{args: "containers ls"},
		{args: "snapshots ls"},

		{args: "leases create -id kept -x 1h a=b"},
		{args: "leases create -id kept"},
		{args: "leases create", differs: random},
		{args: "leases ls id==kept"},
		{args: "leases ls -q id==kept"},
		{args: "leases rm kept"},
		{args: "leases rm kept"},
		{args: "images rm {image}"},
		{args: "images ls"},
		{args: "namespaces rm tour"},
		{args: "-n full snapshots prepare kept"},
		{args: "namespaces rm full"},
		{args: "-n full snapshots rm kept"},
		{args: "namespaces rm full"},
	}
}

// traveller takes the tour at one daemon.
type traveller struct {
	t       *testing.T
	address string
	knows   map[string]string
}

// seen is the normalised result of a step. Errors are compared by their class only: each daemon has its own texts.
type seen struct {
	stdout, class string
	code          int
}

// errorClass returns the end of ctr's last line, or the output of a container.
func errorClass(stderr string) string {
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	last := lines[len(lines)-1]
	if !strings.HasPrefix(last, "ctr: ") {
		return last
	}
	return last[strings.LastIndex(last, ": ")+2:]
}

func (tr *traveller) do(s tourStep) seen {
	tr.t.Helper()
	var pairs []string
	for k, v := range tr.knows {
		pairs = append(pairs, "{"+k+"}", v)
	}
	replace := strings.NewReplacer(pairs...)
	var args []string
	for a := range strings.FieldsSeq(s.args) {
		args = append(args, replace.Replace(a))
	}
	var last seen
	once := func() error {
		var out, errs bytes.Buffer
		cmd := exec.CommandContext(tr.t.Context(), "ctr", append([]string{"--address", tr.address, "--timeout", "30s"}, args...)...)
		cmd.Env = append(os.Environ(), "CONTAINERD_NAMESPACE="+tr.namespace())
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(s.in), &out, &errs
		err := cmd.Run()
		if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
			tr.t.Fatal(err)
		}
		last = seen{tr.plain(out.String()), tr.plain(errorClass(errs.String())), cmd.ProcessState.ExitCode()}
		if !strings.Contains(last.stdout, s.until) || !strings.Contains(last.class, s.says) {
			return fmt.Errorf("ctr %s shows %q, %q", s.args, last.stdout, last.class)
		}
		return nil
	}
	harness.Eventually(tr.t, s.args, once)
	return last
}

// namespace is the namespace of commands without one. Each daemon has its own, since ctr derives the path of a
// container's cgroup from it.
func (tr *traveller) namespace() string {
	if tr.knows["peer"] == "ours" {
		return "default"
	}
	return "tour-" + tr.knows["peer"]
}

// plain removes parts of an output that differ in each run.
func (tr *traveller) plain(s string) string {
	for _, r := range []struct{ what, by string }{
		{regexp.QuoteMeta(tr.knows["dir"]), "DIR"},
		{regexp.QuoteMeta(tr.knows["ref"]), "REF"},
		{`/\S*/(root|state)/\S*?snapshots?\S*/(fs|work)`, "SNAPSHOT/$2"},
		{`/\S*/(root|state)/\S*?/snapshots/\S+`, "SNAPSHOT"},
		{`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( \+0000 UTC|Z)?`, "TIME"},
		{`\b\d+(\.\d+)? (microseconds|milliseconds|seconds)\b`, "TIME"},
		{`(elapsed|took): *\S+`, "ELAPSED"},
		{`\(\d+(\.\d+)?\w*s\)|\b\d+(\.\d+)?(ms|µs|s)\b`, "TIME"},
		{`(?m)^((?:\S+ +)?)\d{3,}( +(RUNNING|STOPPED|PAUSED|CREATED|-))`, "${1}PID$2"},
		{`usage_percpu .*`, "usage_percpu N"},
		{`(memory|cpuacct|pids|cpu|blkio)\.(\S+) +\S+`, "$1.$2 N"},
		{`cleat-tour/\w+`, "cleat-tour/X"},
		{`\btour-\w+\b`, "default"},
		{`[ \t]+`, " "},
	} {
		if r.what != "" {
			s = regexp.MustCompile(r.what).ReplaceAllString(s, r.by)
		}
	}
	return s
}

// newTraveller prepares its own files.
func newTraveller(t *testing.T, name, address, archive string) *traveller {
	t.Helper()
	dir := t.TempDir()
	rootfs := filepath.Join(dir, "rootfs")
	harness.Must(t, os.Mkdir(rootfs, 0o755))
	untar := exec.Command("tar", "-xC", rootfs)
	untar.Stdin = bytes.NewReader(harness.TarOf(t, harness.BusyboxFiles(t)))
	if out, err := untar.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for file, text := range map[string]string{
		"run.sh":   "trap : USR1; while :; do sleep 0.1; done\n",
		"hello.sh": "echo out; echo err >&2; exit 42\n",
	} {
		harness.Must(t, os.WriteFile(filepath.Join(rootfs, file), []byte(text), 0o644))
	}
	return &traveller{t: t, address: address, knows: map[string]string{
		"archive": archive, "image": "docker.io/library/busybox:latest", "none": filepath.Join(dir, "none.tar"),
		"dir": dir, "out": filepath.Join(dir, "out.tar"), "rootfs": rootfs, "fifos": filepath.Join(dir, "fifos"),
		"pidfile": filepath.Join(dir, "pid"), "log": filepath.Join(dir, "log"), "peer": name,
		"blob":  harness.DigestOf("a blob of the tour"),
		"wrong": "sha256:" + strings.Repeat("0", 64),
	}}
}

func TestCtr_OnCleatdAndContainerd_ShowsTheSame(t *testing.T) {
	t.Parallel()
	archive := harness.BusyboxArchive(t)
	peer := newTraveller(t, "peer", harness.StartContainerd(t).Address, archive)
	d := harness.StartUncollected(t)
	ours := newTraveller(t, "ours", d.Address, archive)
	ctx, conn := fixture.GRPC(d)
	defer func() { // ctr cannot delete these
		for _, ref := range []string{"two", "three"} {
			_, err := contentapi.NewContentClient(conn).Abort(ctx, &contentapi.AbortRequest{Ref: ref})
			harness.Must(t, err)
		}
	}()
	compareTours(t, tour(), ours, peer)
}

// compareTours runs both tours, step by step.
func compareTours(t *testing.T, steps []tourStep, ours, peer *traveller) {
	t.Helper()
	for _, s := range steps {
		want, got := peer.do(s), ours.do(s)
		if s.differs != "" {
			want.stdout, got.stdout = "", ""
		}
		if s.class != "" {
			want.class, got.class = "", ""
		}
		if got != want {
			t.Errorf("ctr %s:\nshows      %q, %q, code %d\ncontainerd %q, %q, code %d",
				s.args, got.stdout, got.class, got.code, want.stdout, want.class, want.code)
		}
	}
}
