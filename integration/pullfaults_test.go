package integration

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}

// layersOf returns layers of these sizes on top of those of the test image.
func layersOf(t *testing.T, n, size int) [][]byte {
	t.Helper()
	out := [][]byte{tarOf(t, busyboxFiles(t))}
	for i := range n {
		out = append(out, noise(t, fmt.Sprintf("noise%d", i), size))
	}
	return out
}

// stall makes the registry stop in the middle of a blob: after n bytes it waits for its client to leave, or for the
// returned function. reached is closed at that point.
func (r *Registry) stall(blob []byte, after int) (reached chan struct{}, goOn func()) {
	reached = make(chan struct{})
	free := make(chan struct{})
	var once sync.Once
	path := "/blobs/" + digest.FromBytes(blob).String()
	r.Interfere(func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodGet || !strings.HasSuffix(req.URL.Path, path) || req.Header.Get("Range") != "" {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
		n, _ := w.Write(blob[:after])
		r.Sent.Add(int64(n))
		_ = http.NewResponseController(w).Flush()
		once.Do(func() { close(reached) })
		select {
		case <-req.Context().Done():
		case <-free:
		}
		return true
	})
	return reached, sync.OnceFunc(func() { close(free) })
}

// awaitIngest waits until one ingest of this size is left, and this number of blobs is recorded: a completed ingest
// may not be recorded yet.
func (d *Daemon) awaitIngest(size int64, blobs int) {
	d.t.Helper()
	d.Eventually("the bytes are stored", func() error {
		paths, err := filepath.Glob(filepath.Join(d.Root, "content", "ingest", "*", "data"))
		for _, p := range paths {
			if info, err := os.Stat(p); err == nil && info.Size() == size && len(paths) == 1 {
				return nil
			}
		}
		return fmt.Errorf("%q: %w", paths, err)
	})
	d.Eventually("the other blobs are recorded", func() error { return d.ctrLists(blobs, "content", "ls", "-q") })
}

// ctrLists returns an error unless a command of ctr prints this number of words.
func (d *Daemon) ctrLists(n int, args ...string) error {
	out, err := exec.Command("ctr", append([]string{"--address", d.Address, "--namespace", "default"}, args...)...).CombinedOutput()
	if got := len(strings.Fields(string(out))); err != nil || got != n {
		return fmt.Errorf("%d, want %d: %s: %w", got, n, out, err)
	}
	return nil
}

func TestPull_DaemonKilled_Resumes(t *testing.T) {
	r := StartRegistry(t, RegistryOptions{})
	layers := layersOf(t, 3, 4<<20)
	r.Image("big/box", "1", amd64, layers...)
	total := 0
	for _, l := range layers {
		total += len(l)
	}
	d := Start(t)
	ref := r.Host + "/big/box:1"
	last := layers[len(layers)-1]
	const after = 3 << 20
	reached, goOn := r.stall(last, after)
	defer goOn()
	cmd := d.Command("pull", ref)
	must(t, cmd.Start())
	<-reached
	d.awaitIngest(after, len(layers)+1) // includes manifest and configuration
	d.Kill9()
	if err := cmd.Wait(); err == nil {
		t.Error("the interrupted pull succeeded")
	}
	r.Interfere(nil)
	d.Begin()
	before := r.settled()
	d.Cleat("pull", ref)
	if sent, want := r.settled()-before, int64(len(last)-after); sent != want {
		t.Errorf("the resumed pull was sent %d bytes, missing were %d of %d", sent, want, total)
	}
	if out := d.Cleat("run", "--rm", ref, "sh", "-c", "ls /noise* | wc -l"); out != "3" {
		t.Errorf("%q", out)
	}
	must(t, d.ctrLists(0, "leases", "ls", "-q"))
	d.Cleat("image", "rm", ref)
	d.Eventually("the content is removed", func() error { return d.ctrLists(0, "content", "ls", "-q") })
	d.nothingMade("a pull that was taken up")
}

func TestPull_ClientLeaves_KeepsContent(t *testing.T) {
	r := StartRegistry(t, RegistryOptions{})
	layers := layersOf(t, 1, 2<<20)
	r.Image("big/box", "1", amd64, layers...)
	d := Start(t)
	ref := r.Host + "/big/box:1"
	reached, goOn := r.stall(layers[1], 1<<20)
	defer goOn()
	cmd := d.Command("pull", ref)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	must(t, cmd.Start())
	<-reached
	d.awaitIngest(1<<20, len(layers)+1)
	must(t, cmd.Process.Signal(os.Interrupt))
	if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(), "hint:") {
		t.Errorf("%v, %s", err, stderr.String())
	}
	// Fetched content is kept for the next attempt, by one lease, also over a collection and a restart of the daemon.
	d.Eventually("one lease is left", func() error { return d.ctrLists(1, "leases", "ls", "-q") })
	cmd = d.Command("pull", ref)
	reached = make(chan struct{})
	var once sync.Once
	r.Interfere(func(w http.ResponseWriter, req *http.Request) bool { // the second attempt is abandoned as well
		if !strings.HasSuffix(req.URL.Path, digest.FromBytes(layers[1]).String()) {
			return false
		}
		once.Do(func() { close(reached) })
		<-req.Context().Done()
		return true
	})
	must(t, cmd.Start())
	<-reached
	must(t, cmd.Process.Signal(os.Interrupt))
	if err := cmd.Wait(); err == nil {
		t.Error("the second interrupted pull succeeded")
	}
	d.Eventually("one lease is left of two attempts", func() error { return d.ctrLists(1, "leases", "ls", "-q") })
	d.Cleat("gc")
	d.Restart()
	d.Cleat("gc")
	r.Interfere(nil)
	before := r.settled()
	d.Cleat("pull", ref)
	must(t, d.ctrLists(0, "leases", "ls", "-q"))
	if sent, want := r.settled()-before, int64(len(layers[1])-1<<20); sent != want {
		t.Errorf("%d bytes were sent, missing were %d", sent, want)
	}
	d.Cleat("image", "rm", ref)
	d.nothingMade("a pull that was left")
}

func TestPull_DaemonStopped_Resumes(t *testing.T) {
	r := StartRegistry(t, RegistryOptions{})
	layers := layersOf(t, 1, 2<<20)
	r.Image("big/box", "1", amd64, layers...)
	d := Start(t)
	ref := r.Host + "/big/box:1"
	reached, goOn := r.stall(layers[1], 1<<20)
	defer goOn()
	cmd := d.Command("pull", ref)
	must(t, cmd.Start())
	<-reached
	d.Stop()
	if err := cmd.Wait(); err == nil {
		t.Error("the interrupted pull succeeded")
	}
	r.Interfere(nil)
	d.Begin()
	d.Cleat("pull", ref)
	if out := d.Cleat("run", "--rm", ref, "echo", "runs"); out != "runs" {
		t.Errorf("%q", out)
	}
	d.Cleat("image", "rm", ref)
	d.nothingMade("a pull in which the daemon was stopped")
}

func TestPull_InParallel_FetchesOnce(t *testing.T) {
	r := StartRegistry(t, RegistryOptions{})
	layers := layersOf(t, 4, 1<<20)
	r.Image("big/box", "1", amd64, layers...)
	d := Start(t)
	ref := r.Host + "/big/box:1"
	var wg sync.WaitGroup
	var failed atomic.Int64
	for range 10 {
		wg.Go(func() {
			if out, err := d.Command("pull", "--quiet", ref).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
				failed.Add(1)
			}
		})
	}
	wg.Wait()
	if n := r.Blobs.Load(); n != int64(len(layers))+1 {
		t.Errorf("%d blobs fetched, with %d layers and a configuration", n, len(layers))
	}
	if n := strings.Count(d.Cleat("run", "--rm", ref, "sh", "-c", "ls /noise*"), "noise"); n != 4 {
		t.Errorf("%d files", n)
	}
	d.Cleat("image", "rm", ref)
	d.nothingMade("ten pulls")
}

func TestPull_Fails(t *testing.T) {
	r := StartRegistry(t, RegistryOptions{})
	good := tarOf(t, busyboxFiles(t))
	r.Image("bad/box", "good", amd64, good)
	// The layer differs from the diff ID in its configuration.
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	must(t, err)
	_, err = z.Write(noise(t, "zeros", 1<<20))
	must(t, err)
	must(t, z.Close())
	img := ocispec.Image{Platform: amd64, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromString("something else")}}}
	raw, err := json.Marshal(img)
	must(t, err)
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	m.Config = r.Blob("bad/box", ocispec.MediaTypeImageConfig, raw)
	m.Layers = []ocispec.Descriptor{r.Blob("bad/box", ocispec.MediaTypeImageLayerGzip, packed.Bytes())}
	r.Document("bad/box", "diff", ocispec.MediaTypeImageManifest, m)
	d := Start(t)
	snapshots := d.tree(filepath.Join(d.Root, "snapshots"))
	for name, c := range map[string]struct {
		args      []string
		interfere func(w http.ResponseWriter, req *http.Request) bool
		says      []string
	}{
		"no such tag":        {[]string{r.Host + "/bad/box:none"}, nil, []string{r.Host, "bad/box:none", "Not Found", "hint:"}},
		"no reference":       {[]string{"a//b"}, nil, []string{"a//b", "REGISTRY", "hint:"}},
		"nobody there":       {[]string{"127.0.0.1:1/x"}, nil, []string{"127.0.0.1:1", "refused", "hint:"}},
		"other diff":         {[]string{r.Host + "/bad/box:diff"}, nil, []string{"bad/box:diff", "layer 1 of 1", "hint:"}},
		"no such platform":   {[]string{"--platform", "what", r.Host + "/bad/box:good"}, nil, []string{"platform", "hint:"}},
		"no such driver":     {[]string{"--snapshotter", "none", r.Host + "/bad/box:good"}, nil, []string{"none", "hint:"}},
		"no download at all": {[]string{"--max-concurrent-downloads", "0", r.Host + "/bad/box:good"}, nil, []string{"want 1"}},
		"another digest": {[]string{r.Host + "/bad/box:good"}, func(w http.ResponseWriter, req *http.Request) bool {
			if !strings.HasSuffix(req.URL.Path, digest.FromBytes(good).String()) {
				return false
			}
			data := bytes.Clone(good)
			data[1000] ^= 1
			_, _ = w.Write(data)
			return true
		}, []string{"bad/box:good", digest.FromBytes(good).String(), "wrong about its content"}},
		"forbidden": {[]string{r.Host + "/bad/box:good"}, func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusForbidden)
			return true
		}, []string{"bad/box:good", "403", "403"}},
		"a registry that is ill": {[]string{r.Host + "/bad/box:good"}, func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusInternalServerError)
			return true
		}, []string{"bad/box:good", "500", "later"}},
	} {
		r.Interfere(c.interfere)
		_, stderr, code := d.Try(append([]string{"pull", "--user", alice}, c.args...)...)
		if code != 1 {
			t.Errorf("%s: code %d, %s", name, code, stderr)
		}
		for _, s := range c.says {
			if !strings.Contains(stderr, s) {
				t.Errorf("%s: no %q in %s", name, s, stderr)
			}
		}
		if strings.Contains(stderr+d.Log(), "s3cret-pw") {
			t.Errorf("%s: the password is in the output", name)
		}
		d.nothingMade(name)
	}
	r.Interfere(nil)
	if _, stderr, code := d.Try("run", r.Host+"/bad/box:good", "true"); code != 125 || !strings.Contains(stderr, "cleat pull") {
		t.Errorf("run of a missing image: %d, %s", code, stderr)
	}
	d.Eventually("no snapshots are left", func() error {
		if got := d.tree(filepath.Join(d.Root, "snapshots")); got != snapshots {
			return errors.New(got)
		}
		return nil
	})
	if out := d.Cleat("image", "ls", "--quiet"); out != "" {
		t.Errorf("images are left: %s", out)
	}
}

func TestPull_UsesMirrorsAndCredentialsFromFiles(t *testing.T) {
	r := StartRegistry(t, RegistryOptions{User: alice})
	archive := toolArchives(t)["skopeo's OCI archive"]
	r.skopeo("oci-archive:"+archive, "docker://"+r.Host+"/some/box:1")
	certs := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(certs, "reg.example"), 0o755))
	must(t, os.WriteFile(filepath.Join(certs, "reg.example", "hosts.toml"), fmt.Appendf(nil,
		"server = \"http://%s\"\n[host.\"http://127.0.0.1:1\"]\ncapabilities = [\"pull\", \"resolve\"]\n", r.Host), 0o600))
	d := StartFor(t, certs)
	home := t.TempDir()
	must(t, os.WriteFile(filepath.Join(home, "config.json"), []byte(`{"credHelpers":{"reg.example":"test"},"auths":{"`+r.Host+`":{"auth":"YWxpY2U6czNjcmV0LXB3"}}}`), 0o600))
	must(t, os.WriteFile(filepath.Join(home, "docker-credential-test"), []byte("#!/bin/sh\nread at\necho '{\"Username\":\"alice\",\"Secret\":\"s3cret-pw\"}'\n"), 0o755))
	t.Setenv("DOCKER_CONFIG", home)
	t.Setenv("PATH", home+":"+os.Getenv("PATH"))
	for _, ref := range []string{"reg.example/some/box:1", r.Host + "/some/box:1"} {
		if out := d.Cleat("pull", ref); out != ref+"@"+r.digest("some/box:1") {
			t.Errorf("%q", out)
		}
		d.Cleat("image", "rm", ref)
	}
	if _, stderr, code := d.Try("pull", "--user", "alice:wrong", "reg.example/some/box:1"); code == 0 || !strings.Contains(stderr, "log in") {
		t.Errorf("%d, %s", code, stderr)
	}
	if out, _, code := d.TryInput("s3cret-pw\n", "pull", "--user", "alice", "reg.example/some/box:1"); code != 0 {
		t.Errorf("with the password on stdin: %s", out)
	}
	d.Cleat("image", "prune", "--all")
	d.nothingMade("pulls by a mirror's configuration")
}
