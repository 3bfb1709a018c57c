package api

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

func TestRun_BadInput(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	snapshots := d.Tree(filepath.Join(d.Root, "snapshots"))
	for name, c := range map[string]struct {
		args []string
		code int
		says []string // expected in stderr
	}{
		"unknown image":       {[]string{"nosuch", "true"}, 125, []string{`nosuch`, "not found", "hint:"}},
		"missing program":     {[]string{"busybox", "nosuchprogram"}, 127, []string{"nosuchprogram", "hint:"}},
		"missing path":        {[]string{"busybox", "/no/such"}, 127, []string{"/no/such", "hint:"}},
		"not executable":      {[]string{"busybox", "/bin/plain"}, 126, []string{"/bin/plain", "permission denied", "hint:"}},
		"a directory":         {[]string{"busybox", "/bin"}, 126, []string{"/bin", "hint:"}},
		"not a program":       {[]string{"-v", "/etc/passwd:/bin/x", "busybox", "/bin/x"}, 126, []string{"/bin/x"}},
		"unknown user":        {[]string{"-u", "nosuchuser", "busybox", "true"}, 125, []string{"nosuchuser"}},
		"unknown group":       {[]string{"-u", "root:none-here", "busybox", "true"}, 125, []string{"none-here"}},
		"missing bind source": {[]string{"-v", "/no/such/dir:/x", "busybox", "true"}, 125, []string{"/no/such/dir"}},
		"missing namespace":   {[]string{"--net", "ns:/no/such/ns", "busybox", "true"}, 125, []string{"/no/such/ns"}},
		"unknown capability":  {[]string{"--cap-add", "CAP_NONSENSE", "busybox", "true"}, 125, []string{"NONSENSE"}},
		"bad memory":          {[]string{"-m", "lots", "busybox", "true"}, 125, []string{"lots"}},
		"unknown runtime":     {[]string{"--runtime", "io.nosuch.v1", "busybox", "true"}, 125, []string{"containerd-shim-nosuch-v1"}},
		"runtime by path":     {[]string{"--runtime", "/no/such/shim", "busybox", "true"}, 125, []string{"/no/such/shim"}},
		"an invalid shim":     {[]string{"--runtime", "/bin/false", "busybox", "true"}, 125, []string{"false"}},
		"empty id":            {[]string{"--name", " ", "busybox", "true"}, 125, []string{"identifier"}},
		"a space":             {[]string{"--name", "a b", "busybox", "true"}, 125, []string{"a b"}},
		"a leading dot":       {[]string{"--name", ".a", "busybox", "true"}, 125, []string{".a"}},
		"a leading dash":      {[]string{"--name", "-a", "busybox", "true"}, 125, []string{"-a"}},
		"too long":            {[]string{"--name", strings.Repeat("a", 77), "busybox", "true"}, 125, []string{"76"}},
		"path as id":          {[]string{"--name", "../../../../../etc", "busybox", "true"}, 125, []string{"../../../../../etc"}},
		"path below":          {[]string{"--name", "a/../b", "busybox", "true"}, 125, []string{"a/../b"}},
		"a line break":        {[]string{"--name", "a\nb", "busybox", "true"}, 125, []string{"identifier"}},
	} {
		for _, mode := range []string{"--rm", "-d", "-i"} {
			stdout, stderr, code := d.Try(append([]string{"run", mode}, c.args...)...)
			if code != c.code || stdout != "" {
				t.Errorf("%s, %s: code %d, want %d; %q, %q", name, mode, code, c.code, stdout, stderr)
			}
			for _, want := range c.says {
				if !strings.Contains(stderr, want) {
					t.Errorf("%s, %s: the message lacks %q: %s", name, mode, want, stderr)
				}
			}
			if lines := strings.Count(stderr, "\n"); lines > 2 {
				t.Errorf("%s, %s: %d lines instead of a message and a hint:\n%s", name, mode, lines, stderr)
			}
		}
		d.NoRemains(name)
	}
	d.Eventually("the snapshots are as before", func() error {
		if now := d.Tree(filepath.Join(d.Root, "snapshots")); now != snapshots {
			return fmt.Errorf("before:\n%s\nafter:\n%s", snapshots, now)
		}
		return nil
	})
}

func TestExec_BadInput(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	for name, c := range map[string]struct {
		args []string
		code int
	}{
		"missing program":   {[]string{"c", "nosuchprogram"}, 127},
		"missing directory": {[]string{"-w", "/nosuch", "c", "true"}, 126},
		"not executable":    {[]string{"c", "/bin/plain"}, 126},
		"unknown user":      {[]string{"-u", "nosuchuser", "c", "true"}, 125},
		"unknown container": {[]string{"nosuch", "true"}, 125},
		"path as id":        {[]string{"../c", "true"}, 125},
	} {
		if stdout, stderr, code := d.Try(append([]string{"exec"}, c.args...)...); code != c.code || stdout != "" || stderr == "" {
			t.Errorf("%s: code %d, want %d; %q, %q", name, code, c.code, stdout, stderr)
		}
	}
	client := fixture.Client(d)
	d.Eventually("no process is left", func() error {
		pids, err := client.Pids(t.Context(), "c")
		if err == nil && len(pids) != 1 {
			err = fmt.Errorf("%v", pids)
		}
		return err
	})
	if got := d.Status("c", "running"); got.Pid == 0 {
		t.Error("the container ended")
	}
}

// The error of a command that needs a running container says that the container has ended.
func TestEndedContainer_ErrorSaysEnded(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("run", "-d", "--name", "c", "busybox", "sh", "-c", "exit 3")
	d.Cleat("wait", "c")
	for _, args := range [][]string{{"kill", "c"}, {"pause", "c"}, {"resume", "c"}, {"exec", "c", "true"}} {
		_, stderr, code := d.Try(args...)
		if code == 0 || !strings.Contains(stderr, "container c is not running: exited with code 3") || !strings.Contains(stderr, "hint: cleat inspect c") {
			t.Errorf("%s: code %d, %s", args, code, stderr)
		}
	}
	d.Cleat("stop", "c")
	// A missing container does not prevent the others from being shown.
	for command, want := range map[string]string{"wait": "3\n", "inspect": `"id": "c"`} {
		stdout, stderr, code := d.Try(command, "nosuch", "c")
		if code != 1 || !strings.Contains(stdout, want) || !strings.Contains(stderr, `nosuch`) {
			t.Errorf("%s: code %d, %q, %q", command, code, stdout, stderr)
		}
	}
}

func TestBadInput_ErrorClasses(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	c := fixture.Client(d)
	ctx, cancel := context.WithTimeout(t.Context(), harness.Limit)
	defer cancel()
	sentinel := filepath.Join(filepath.Dir(d.Root), "sentinel")
	harness.Must(t, os.WriteFile(sentinel, nil, 0o600))
	run := func(r client.RunRequest) error {
		if r.Spec == nil {
			r.Spec = fixture.BusyboxSpec(t, "true")
		}
		_, err := c.Run(ctx, r)
		return err
	}
	for name, x := range map[string]struct {
		err   error
		class func(error) bool
	}{
		"run, unknown image":           {run(client.RunRequest{Image: "nosuch"}), errdefs.IsNotFound},
		"run, no image":                {run(client.RunRequest{}), errdefs.IsInvalidArgument},
		"run, missing program":         {run(client.RunRequest{Image: "busybox", Spec: fixture.BusyboxSpec(t, "nosuch")}), errdefs.IsNotFound},
		"run, not executable":          {run(client.RunRequest{Image: "busybox", Spec: fixture.BusyboxSpec(t, "/bin/plain")}), errdefs.IsPermissionDenied},
		"run, invalid id":              {run(client.RunRequest{ID: "a b", Image: "busybox"}), errdefs.IsInvalidArgument},
		"run, path as id":              {run(client.RunRequest{ID: "../x", Image: "busybox"}), errdefs.IsInvalidArgument},
		"run, unknown runtime":         {run(client.RunRequest{Image: "busybox", Runtime: "io.nosuch.v1"}), errdefs.IsNotFound},
		"run, invalid runtime":         {run(client.RunRequest{Image: "busybox", Runtime: "../x"}), errdefs.IsInvalidArgument},
		"run, unknown snapshotter":     {run(client.RunRequest{Image: "busybox", Snapshotter: "../x"}), errdefs.IsInvalidArgument},
		"run, missing fifo":            {run(client.RunRequest{Image: "busybox", Stdio: client.Stdio{Stdout: "/no/such/fifo"}}), errdefs.IsNotFound},
		"run, relative stdio":          {run(client.RunRequest{Image: "busybox", Stdio: client.Stdio{Stdout: "fifo"}}), errdefs.IsInvalidArgument},
		"run, unknown stdio":           {run(client.RunRequest{Image: "busybox", Stdio: client.Stdio{Stdout: "http://x/"}}), errdefs.IsInvalidArgument},
		"remove, unknown":              {c.Remove(ctx, "nosuch", true), errdefs.IsNotFound},
		"remove, path as id":           {c.Remove(ctx, "../../sentinel", true), notFoundOrInvalid},
		"kill, unknown":                {c.Kill(ctx, "nosuch", client.KillRequest{Signal: unix.SIGKILL}), errdefs.IsNotFound},
		"kill, path as id":             {c.Kill(ctx, "../x", client.KillRequest{Signal: unix.SIGKILL}), notFoundOrInvalid},
		"wait, unknown":                {harness.Second(c.Wait(ctx, "nosuch", 0)), errdefs.IsNotFound},
		"state, path as id":            {harness.Second(c.State(ctx, "../../x", "")), notFoundOrInvalid},
		"spec, unknown":                {harness.Second(c.Spec(ctx, "nosuch")), errdefs.IsNotFound},
		"image, unknown":               {c.RemoveImage(ctx, "nosuch"), errdefs.IsNotFound},
		"namespace, path as name":      {c.CreateNamespace(ctx, "../x"), errdefs.IsInvalidArgument},
		"namespace, too long":          {c.CreateNamespace(ctx, strings.Repeat("n", 77)), errdefs.IsInvalidArgument},
		"namespace, exists":            {c.CreateNamespace(ctx, "default"), errdefs.IsAlreadyExists},
		"namespace, not empty":         {c.DeleteNamespace(ctx, "default"), errdefs.IsFailedPrecondition},
		"in a namespace, path as name": {inNamespace(d, "../x"), errdefs.IsInvalidArgument},
		"in an unknown namespace":      {inNamespace(d, "nosuch"), errdefs.IsNotFound},
		"start, unknown exec":          {harness.Second(c.Start(ctx, "nosuch", "x")), errdefs.IsNotFound},
	} {
		if x.err == nil || !x.class(x.err) {
			t.Errorf("%s: %v (%T)", name, x.err, errdefs.Resolve(x.err))
		}
	}
	harness.Must(t, harness.Exists(sentinel)())
	d.NoRemains("bad input")
}

// notFoundOrInvalid lists the accepted classes for an id that is a path to another place.
func notFoundOrInvalid(err error) bool {
	return errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err)
}

// inNamespace runs a container in a namespace.
func inNamespace(d *harness.Daemon, name string) error {
	d.T.Helper()
	c, err := client.Dial(d.T.Context(), d.Address, client.Options{Namespace: name})
	harness.Must(d.T, err)
	defer func() { harness.Must(d.T, c.Close()) }()
	_, err = c.Run(d.T.Context(), client.RunRequest{Image: "busybox", Spec: fixture.BusyboxSpec(d.T, "true")})
	return err
}

func TestCreate_SpecRefusedByRunc(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	c := fixture.Client(d)
	for name, change := range map[string]func(*specs.Spec){
		"unknown file system": func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "nosuchfs", Source: "x"})
		},
		"a repeated limit": func(s *specs.Spec) {
			r := specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Hard: 10, Soft: 10}
			s.Process.Rlimits = []specs.POSIXRlimit{r, r}
		},
		"unknown limit":               func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NONSENSE"}} },
		"host name without namespace": func(s *specs.Spec) { s.Linux.Namespaces = without(s.Linux.Namespaces, specs.UTSNamespace) },
		"no root":                     func(s *specs.Spec) { s.Process.Cwd = "" },
		"relative working":            func(s *specs.Spec) { s.Process.Cwd = "tmp" },
		"missing namespace path":      func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "/no/such/namespace" },
		"propagation":                 func(s *specs.Spec) { s.Linux.RootfsPropagation = "nonsense" },
		"a failing hook":              func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}} },
		"a failing late hook":         func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/bin/false"}}} },
		"limits above the maximum":    func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.nonsense": "1"} },
	} {
		s := fixture.BusyboxSpec(t, "sleep", "1000")
		s.Hostname = "x"
		change(s)
		_, err := c.Run(t.Context(), client.RunRequest{ID: "c", Image: "busybox", Spec: s, Log: true})
		if err == nil {
			t.Errorf("%s: the container runs", name)
			d.Cleat("rm", "--force", "c")
		}
		if errdefs.IsUnavailable(err) || errdefs.IsAlreadyExists(err) || errdefs.IsNotImplemented(err) {
			t.Errorf("%s: class of %v", name, err)
		}
		d.NoRemains(name)
	}
}

func without(list []specs.LinuxNamespace, kind specs.LinuxNamespaceType) (out []specs.LinuxNamespace) {
	for _, n := range list {
		if n.Type != kind {
			out = append(out, n)
		}
	}
	return out
}

func TestImport_BadArchives(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	c := fixture.Client(d)
	whole, err := os.ReadFile(harness.BusyboxArchive(t))
	harness.Must(t, err)
	layer := harness.TarOf(t, harness.BusyboxFiles(t))
	altered := func(alter func(map[digest.Digest][]byte)) []byte {
		data, err := os.ReadFile(harness.OCIArchive(t, [][]byte{layer}, harness.BusyboxConfig(), alter))
		harness.Must(t, err)
		return data
	}
	noLayer, err := os.ReadFile(harness.OCIArchive(t, [][]byte{layer, bytes.Repeat([]byte("nonsense"), 1000)}, harness.BusyboxConfig(), nil))
	harness.Must(t, err)
	for name, data := range map[string][]byte{
		"a layer of garbage":   noLayer,
		"empty":                {},
		"no archive":           []byte(strings.Repeat("nonsense", 1000)),
		"cut in a layer":       whole[:len(whole)/2],
		"cut early":            whole[:700],
		"an unrelated archive": layer,
		"a wrong digest": altered(func(blobs map[digest.Digest][]byte) {
			bad := bytes.Clone(layer)
			bad[len(bad)/2] ^= 0xff
			blobs[digest.FromBytes(layer)] = bad
		}),
		"a missing blob": altered(func(blobs map[digest.Digest][]byte) { delete(blobs, digest.FromBytes(layer)) }),
		"a short blob": altered(func(blobs map[digest.Digest][]byte) {
			blobs[digest.FromBytes(layer)] = layer[:len(layer)/2]
		}),
	} {
		_, err := c.ImportImage(t.Context(), bytes.NewReader(data), client.ImportOptions{Name: "bad"})
		if err == nil || errdefs.IsUnavailable(err) || errdefs.IsInternal(err) {
			t.Errorf("%s: %v", name, err)
		}
		path := filepath.Join(t.TempDir(), "bad.tar")
		harness.Must(t, os.WriteFile(path, data, 0o600))
		if _, stderr, code := d.Try("image", "import", "--name", "bad", path); code != 1 || stderr == "" {
			t.Errorf("%s: code %d, %q", name, code, stderr)
		}
		if list := d.Cleat("image", "ls", "--quiet"); list != "" {
			t.Errorf("%s: images %q", name, list)
		}
		d.NoRemains(name)
		for _, dir := range []string{"content/blobs/sha256", "snapshots/overlayfs"} {
			d.Eventually(name+" leaves nothing", func() error { return harness.Empty(filepath.Join(d.Root, dir), 1) })
		}
	}
	d.Cleat("image", "import", "--name", "good", harness.BusyboxArchive(t))
	if out := d.Cleat("run", "--rm", "good", "echo", "yes"); out != "yes" {
		t.Errorf("a valid archive afterwards: %q", out)
	}
}
