package registry

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/integration/harness"
)

func TestPull_DaemonKilled_Resumes(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	layers := harness.LayersOf(t, 3, 4<<20)
	r.Image("big/box", "1", harness.Amd64, layers...)
	total := 0
	for _, l := range layers {
		total += len(l)
	}
	d := harness.Start(t)
	ref := r.Host + "/big/box:1"
	last := layers[len(layers)-1]
	const after = 3 << 20
	reached, release := r.Stall(last, after)
	defer release()
	cmd := d.Command("pull", ref)
	harness.Must(t, cmd.Start())
	<-reached
	d.AwaitIngest(after, len(layers)+1) // includes manifest and configuration
	d.Kill9()
	if err := cmd.Wait(); err == nil {
		t.Error("the interrupted pull succeeded")
	}
	r.Interfere(nil)
	d.Begin()
	before := r.SentBytes()
	d.Cleat("pull", ref)
	if sent, want := r.SentBytes()-before, int64(len(last)-after); sent != want {
		t.Errorf("the resumed pull was sent %d bytes, missing were %d of %d", sent, want, total)
	}
	if out := d.Cleat("run", "--rm", ref, "sh", "-c", "ls /noise* | wc -l"); out != "3" {
		t.Errorf("%q", out)
	}
	harness.Must(t, d.CtrLists(0, "leases", "ls", "-q"))
	d.Cleat("image", "rm", ref)
	d.Eventually("the content is removed", func() error { return d.CtrLists(0, "content", "ls", "-q") })
	d.NoRemains("a resumed pull")
}

func TestPull_ClientLeaves_KeepsContent(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	ref, layers, reached, release := r.StallImage()
	d := harness.Start(t)
	defer release()
	cmd := d.Command("pull", ref)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	harness.Must(t, cmd.Start())
	<-reached
	d.AwaitIngest(1<<20, len(layers)+1)
	harness.Must(t, cmd.Process.Signal(os.Interrupt))
	if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(), "hint:") {
		t.Errorf("%v, %s", err, stderr.String())
	}
	// Fetched content is kept for the next attempt, by one lease, also over a collection and a restart of the daemon.
	d.Eventually("one lease is left", func() error { return d.CtrLists(1, "leases", "ls", "-q") })
	cmd = d.Command("pull", ref)
	reached = make(chan struct{})
	var once sync.Once
	r.Interfere(func(_ http.ResponseWriter, req *http.Request) bool { // the second attempt is abandoned as well
		if !strings.HasSuffix(req.URL.Path, digest.FromBytes(layers[1]).String()) {
			return false
		}
		once.Do(func() { close(reached) })
		<-req.Context().Done()
		return true
	})
	harness.Must(t, cmd.Start())
	<-reached
	harness.Must(t, cmd.Process.Signal(os.Interrupt))
	if err := cmd.Wait(); err == nil {
		t.Error("the second interrupted pull succeeded")
	}
	d.Eventually("one lease is left of two attempts", func() error { return d.CtrLists(1, "leases", "ls", "-q") })
	d.Cleat("gc")
	d.Restart()
	d.Cleat("gc")
	r.Interfere(nil)
	before := r.SentBytes()
	d.Cleat("pull", ref)
	harness.Must(t, d.CtrLists(0, "leases", "ls", "-q"))
	if sent, want := r.SentBytes()-before, int64(len(layers[1])-1<<20); sent != want {
		t.Errorf("%d bytes were sent, missing were %d", sent, want)
	}
	d.Cleat("image", "rm", ref)
	d.NoRemains("an abandoned pull")
}

func TestPull_DaemonStopped_Resumes(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	ref, _, reached, release := r.StallImage()
	d := harness.Start(t)
	defer release()
	cmd := d.Command("pull", ref)
	harness.Must(t, cmd.Start())
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
	d.NoRemains("a pull over a stop of the daemon")
}

func TestPull_InParallel_FetchesOnce(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	layers := harness.LayersOf(t, 4, 1<<20)
	r.Image("big/box", "1", harness.Amd64, layers...)
	d := harness.Start(t)
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
	d.NoRemains("ten pulls")
}

func TestPull_Fails(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	good := harness.TarOf(t, harness.BusyboxFiles(t))
	r.Image("bad/box", "good", harness.Amd64, good)
	// The layer differs from the diff ID in its configuration.
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	harness.Must(t, err)
	_, err = z.Write(harness.Noise(t, "zeros", 1<<20))
	harness.Must(t, err)
	harness.Must(t, z.Close())
	img := ocispec.Image{Platform: harness.Amd64, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromString("something else")}}}
	raw, err := json.Marshal(img)
	harness.Must(t, err)
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	m.Config = r.Blob("bad/box", ocispec.MediaTypeImageConfig, raw)
	m.Layers = []ocispec.Descriptor{r.Blob("bad/box", ocispec.MediaTypeImageLayerGzip, packed.Bytes())}
	r.Document("bad/box", "diff", ocispec.MediaTypeImageManifest, m)
	d := harness.Start(t)
	snapshots := d.Tree(filepath.Join(d.Root, "snapshots"))
	for name, c := range map[string]struct {
		args      []string
		interfere func(w http.ResponseWriter, req *http.Request) bool
		says      []string
	}{
		"no such tag":      {[]string{r.Host + "/bad/box:none"}, nil, []string{r.Host, "bad/box:none", "Not Found", "hint:"}},
		"no reference":     {[]string{"a//b"}, nil, []string{"a//b", "REGISTRY", "hint:"}},
		"no server":        {[]string{"127.0.0.1:1/x"}, nil, []string{"127.0.0.1:1", "refused", "hint:"}},
		"other diff":       {[]string{r.Host + "/bad/box:diff"}, nil, []string{"bad/box:diff", "layer 1 of 1", "hint:"}},
		"no such platform": {[]string{"--platform", "what", r.Host + "/bad/box:good"}, nil, []string{"platform", "hint:"}},
		"no such driver":   {[]string{"--snapshotter", "none", r.Host + "/bad/box:good"}, nil, []string{"none", "hint:"}},
		"no manifest":      {[]string{"--max-concurrent-downloads", "0", r.Host + "/bad/box:good"}, nil, []string{"want 1"}},
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
		"a failing registry": {[]string{r.Host + "/bad/box:good"}, func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusInternalServerError)
			return true
		}, []string{"bad/box:good", "500", "later"}},
	} {
		r.Interfere(c.interfere)
		_, stderr, code := d.Try(append([]string{"pull", "--user", harness.Alice}, c.args...)...)
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
		d.NoRemains(name)
	}
	r.Interfere(nil)
	if _, stderr, code := d.Try("run", r.Host+"/bad/box:good", "true"); code != 125 || !strings.Contains(stderr, "cleat pull") {
		t.Errorf("run of a missing image: %d, %s", code, stderr)
	}
	d.Eventually("no snapshots are left", func() error {
		if got := d.Tree(filepath.Join(d.Root, "snapshots")); got != snapshots {
			return errors.New(got)
		}
		return nil
	})
	if out := d.Cleat("image", "ls", "--quiet"); out != "" {
		t.Errorf("images are left: %s", out)
	}
}

func TestPull_UsesMirrorsAndCredentialsFromFiles(t *testing.T) {
	r := harness.StartRegistry(t, harness.RegistryOptions{User: harness.Alice})
	archive := harness.ToolArchives(t)["skopeo's OCI archive"]
	r.Skopeo("oci-archive:"+archive, "docker://"+r.Host+"/some/box:1")
	certs := t.TempDir()
	harness.Must(t, os.MkdirAll(filepath.Join(certs, "reg.example"), 0o755))
	harness.Must(t, os.WriteFile(filepath.Join(certs, "reg.example", "hosts.toml"), fmt.Appendf(nil,
		"server = \"http://%s\"\n[host.\"http://127.0.0.1:1\"]\ncapabilities = [\"pull\", \"resolve\"]\n", r.Host), 0o600))
	d := StartFor(t, certs)
	home := t.TempDir()
	harness.Must(t, os.WriteFile(filepath.Join(home, "config.json"), []byte(`{"credHelpers":{"reg.example":"test"},"auths":{"`+r.Host+`":{"auth":"YWxpY2U6czNjcmV0LXB3"}}}`), 0o600))
	harness.Must(t, os.WriteFile(filepath.Join(home, "docker-credential-test"), []byte("#!/bin/sh\nread at\necho '{\"Username\":\"alice\",\"Secret\":\"s3cret-pw\"}'\n"), 0o755))
	t.Setenv("DOCKER_CONFIG", home)
	t.Setenv("PATH", home+":"+os.Getenv("PATH"))
	for _, ref := range []string{"reg.example/some/box:1", r.Host + "/some/box:1"} {
		if out := d.Cleat("pull", ref); out != ref+"@"+r.Digest("some/box:1") {
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
	d.NoRemains("pulls by a mirror's configuration")
}
