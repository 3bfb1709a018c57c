package images

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/integration/harness"
)

func TestRun_UsersOfImage(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	accounts := "root:x:0:0::/:/bin/sh\nover:x:2147483648:5:::\nround:x:4294967296:0:::\n1234:x:0:0:a number for a name::\n" +
		"minus:x:-1:-1:::\nweb:x:1000:1001:::\n"
	groups := "root:x:0:\nover:x:2147483648:\nround:x:4294967296:\n55:x:0:\n"
	for _, user := range []string{
		"2147483648", "4294967295", "4294967296", "18446744073709551616", "-1", "over", "round", "minus", "nobody", "web:over",
		"web:round", "web:4294967296", "web:-1", "web:", ":", "0x0", " 0",
	} {
		d.Account("accounts", user, accounts, groups)
		if out, stderr, code := d.Try("run", "--rm", "accounts", "id", "-u"); code != 125 || out != "" {
			t.Errorf("user %q: %d, %q, %s", user, code, out, stderr)
		}
		if _, stderr, code := d.Try("run", "--rm", "--user", user, "accounts", "true"); code != 125 {
			t.Errorf("--user %q: %d, %s", user, code, stderr)
		}
	}
	for user, want := range map[string]string{
		"1234": "1234 0", "1234:55": "1234 55", "2147483647:2147483647": "2147483647 2147483647", "web": "1000 1001", "": "0 0",
	} {
		d.Account("accounts", user, accounts, groups)
		if out := d.Cleat("run", "--rm", "accounts", "sh", "-c", "echo $(id -u) $(id -g)"); out != want {
			t.Errorf("user %q: %q, want %q", user, out, want)
		}
	}
	d.NoRemains("users")
}

func TestRun_HugeAccountFiles_BoundsMemory(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	lines := strings.Repeat("a:x:1:1:::\n", 1<<20) // 11 MiB
	line := "x" + strings.Repeat("y", 8<<20) + ":x:5:5:::\n"
	for name, c := range map[string]struct{ passwd, group, user string }{
		"many lines":  {lines + "web:x:7:7:::\n", "web:x:7:\n", "web"},
		"a long line": {line + "web:x:7:7:::\n", "web:x:7:\n", "web"},
		"many groups": {"web:x:7:7:::\n", strings.Repeat("a:x:1:\n", 1<<20) + "g:x:9:\n", "web:g"},
		"a big group": {"web:x:7:7:::\n", "g:x:9:" + strings.Repeat("u,", 4<<20) + "\n", "web:g"},
	} {
		d.Account("big", c.user, c.passwd, c.group)
		before := rss(t, d.Cmd.Process.Pid)
		if out, stderr, code := d.Try("run", "--rm", "big", "id", "-u"); code != 125 || out != "" || stderr == "" {
			t.Errorf("%s: %d, %q, %s", name, code, out, stderr)
		}
		if grown := rss(t, d.Cmd.Process.Pid) - before; grown > 64<<20 {
			t.Errorf("%s: the daemon grew by %d MiB", name, grown>>20)
		}
	}
	d.NoRemains("huge files")
}

// rss returns the resident memory of a process in bytes.
func rss(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	harness.Must(t, err)
	var all, resident int
	_, err = fmt.Sscan(string(data), &all, &resident)
	harness.Must(t, err)
	return resident * os.Getpagesize()
}

func TestRun_LinksOfImage_StayInside(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	outside := t.TempDir()
	harness.Must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	files := append(harness.BusyboxFiles(t),
		harness.File{Name: "abs", Link: outside}, harness.File{Name: "up", Link: "../../../../../../.." + outside}, harness.File{Name: "self", Link: "/proc/self/cwd" + outside},
		harness.File{Name: "etc/abs", Link: outside})
	before := d.Tree(outside)
	for _, path := range []string{"/abs", "/up", "/etc/abs", "/self", "/abs/new", "/up/new/deep", "/../../../.." + outside} {
		cfg := harness.BusyboxConfig()
		cfg.WorkingDir = path
		cfg.Volumes = map[string]struct{}{path: {}, path + "/volume": {}}
		d.Cleat("image", "import", "--name", "links", harness.OCIArchive(t, [][]byte{harness.TarOf(t, files)}, cfg, nil))
		for _, args := range [][]string{{}, {"--read-only"}, {"--workdir", path}, {"--tmpfs", path + "/tmpfs"}} {
			// Both a refusal and confinement are correct.
			out, _, _ := d.Try(append(append([]string{"run", "--rm"}, args...), "links", "sh", "-c", "touch made; cat secret "+outside+"/secret")...)
			if strings.Contains(out, "secret") {
				t.Errorf("%s, %q: read outside of the root", path, args)
			}
		}
		if got := d.Tree(outside); got != before {
			t.Errorf("%s: written outside of the root:\n%s", path, got)
		}
	}
	d.NoRemains("links")
}

// strayingImage returns the documents of an image by URL suffix. Its layer has foreign URLs only.
func strayingImage(t *testing.T, layer []byte, mediaType string, urls []string) map[string][]byte {
	t.Helper()
	docs := make(map[string][]byte)
	put := func(mediaType string, v any) ocispec.Descriptor {
		raw, err := json.Marshal(v)
		harness.Must(t, err)
		name := digest.FromBytes(raw)
		docs["/blobs/"+name.String()], docs["/manifests/"+name.String()] = raw, raw
		return ocispec.Descriptor{MediaType: mediaType, Digest: name, Size: int64(len(raw))}
	}
	img := ocispec.Image{Platform: harness.Amd64, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: put(ocispec.MediaTypeImageConfig, img)}
	m.Layers = []ocispec.Descriptor{{MediaType: mediaType, Digest: digest.FromBytes(layer), Size: int64(len(layer)), URLs: urls}}
	docs["/manifests/1"] = docs["/manifests/"+put(ocispec.MediaTypeImageManifest, m).Digest.String()]
	return docs
}

func TestPull_CredentialsStayAtRegistry(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []string
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, fmt.Sprint(req.Method, " ", req.URL, " ", req.Header))
		w.Header().Set("WWW-Authenticate", `Basic realm="mine"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer stranger.Close()
	r := harness.StartRegistry(t, harness.RegistryOptions{User: harness.Alice})
	layer := harness.TarOf(t, harness.BusyboxFiles(t))
	d := harness.Start(t)
	image := func(mediaType string, urls ...string) map[string][]byte {
		return strayingImage(t, layer, mediaType, urls)
	}
	for name, docs := range map[string]map[string][]byte{
		"a foreign layer":           image("application/vnd.docker.image.rootfs.foreign.diff.tar", stranger.URL+"/layer"),
		"OCI's foreign layer":       image("application/vnd.oci.image.layer.nondistributable.v1.tar", stranger.URL+"/layer"),
		"URLs of an ordinary layer": image(ocispec.MediaTypeImageLayer, stranger.URL+"/layer"),
		"a redirect":                image(ocispec.MediaTypeImageLayer),
		"a foreign layer with a user": image("application/vnd.docker.image.rootfs.foreign.diff.tar",
			strings.Replace(stranger.URL, "://", "://alice:s3cret-pw@", 1)+"/layer"),
	} {
		r.Interfere(func(w http.ResponseWriter, req *http.Request) bool {
			for at, doc := range docs {
				if strings.HasSuffix(req.URL.Path, at) {
					w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
					_, _ = w.Write(doc)
					return true
				}
			}
			if strings.Contains(req.URL.Path, "/blobs/") {
				http.Redirect(w, req, stranger.URL+"/layer", http.StatusTemporaryRedirect)
				return true
			}
			return false
		})
		if _, stderr, code := d.Try("pull", "--user", harness.Alice, r.Host+"/some/box:1"); code != 1 {
			t.Errorf("%s: %d, %s", name, code, stderr)
		}
		mu.Lock()
		for _, s := range seen {
			if strings.Contains(s, "Authorization") || strings.Contains(s, "s3cret") || strings.Contains(s, "YWxpY2U6") {
				t.Errorf("%s: the foreign server received %s", name, s)
			}
		}
		if name == "a redirect" && len(seen) == 0 {
			t.Error("no request to the foreign server: the test is void")
		}
		seen = nil
		mu.Unlock()
		if strings.Contains(d.Log(), "s3cret-pw") {
			t.Errorf("%s: the password is in the log", name)
		}
	}
	d.NoRemains("foreign servers")
}

func TestPull_AmbiguousDocuments_AreRefused(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	d := harness.Start(t)
	layer := harness.TarOf(t, harness.BusyboxFiles(t))
	img, err := json.Marshal(ocispec.Image{Platform: harness.Amd64, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}}})
	harness.Must(t, err)
	desc := func(mediaType string, data []byte) string {
		raw, err := json.Marshal(ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))})
		harness.Must(t, err)
		return string(raw)
	}
	parts := `"config":` + desc(ocispec.MediaTypeImageConfig, img) + `,"layers":[` + desc(ocispec.MediaTypeImageLayer, layer) + `]`
	good := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `",` + parts + `}`
	manifests := `"manifests":[` + desc(ocispec.MediaTypeImageManifest, []byte(good)) + `]`
	for name, c := range map[string]struct{ mediaType, doc string }{
		"a manifest with manifests":            {ocispec.MediaTypeImageManifest, `{"schemaVersion":2,` + parts + `,` + manifests + `}`},
		"an index with layers":                 {ocispec.MediaTypeImageIndex, `{"schemaVersion":2,` + manifests + `,` + parts + `}`},
		"Docker's list with layers":            {harness.DockerList, `{"schemaVersion":2,` + manifests + `,` + parts + `}`},
		"an index with the type of a manifest": {ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `",` + manifests + `}`},
		"a manifest with the type of an index": {ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `",` + parts + `}`},
		"a manifest with Docker's type":        {ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"mediaType":"` + harness.DockerManifest + `",` + parts + `}`},
		"a manifest with members of schema 1":  {ocispec.MediaTypeImageManifest, `{"schemaVersion":2,` + parts + `,"fsLayers":[],"history":[]}`},
		"an index in an index's list":          {ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[` + desc(ocispec.MediaTypeImageIndex, []byte(good)) + `]}`},
	} {
		docs := map[string][]byte{digest.FromBytes(img).String(): img, digest.FromBytes(layer).String(): layer, digest.FromString(good).String(): []byte(good), "/1": []byte(c.doc), digest.FromString(c.doc).String(): []byte(c.doc)}
		r.Interfere(func(w http.ResponseWriter, req *http.Request) bool {
			for at, doc := range docs {
				if strings.HasSuffix(req.URL.Path, at) {
					w.Header().Set("Content-Type", c.mediaType)
					if bytes.Equal(doc, []byte(good)) {
						w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
					}
					_, _ = w.Write(doc)
					return true
				}
			}
			return false
		})
		if out, stderr, code := d.Try("pull", r.Host+"/some/box:1"); code != 1 {
			t.Errorf("pull of %s: %d, %s, %s", name, code, out, stderr)
		}
		// The same documents in an archive.
		index := `{"schemaVersion":2,"manifests":[` + desc(c.mediaType, []byte(c.doc)) + `]}`
		files := []harness.File{{Name: "oci-layout", Body: `{"imageLayoutVersion":"1.0.0"}`, Mode: 0o644}, {Name: "index.json", Body: index, Mode: 0o644}}
		for at, doc := range docs {
			if algorithm, hex, ok := strings.Cut(at, ":"); ok {
				files = append(files, harness.File{Name: "blobs/" + algorithm + "/" + hex, Body: string(doc), Mode: 0o644})
			}
		}
		path := filepath.Join(t.TempDir(), "a.tar")
		harness.Must(t, os.WriteFile(path, harness.TarOf(t, files), 0o600))
		if out, stderr, code := d.Try("image", "import", "--name", "x", path); code != 1 {
			t.Errorf("import of %s: %d, %s, %s", name, code, out, stderr)
		}
		if list := d.Cleat("image", "ls", "-q"); list != "" {
			t.Errorf("%s: images %q", name, list)
		}
		d.NoRemains(name)
	}
}

func TestPull_EndlessDocuments_BoundsMemory(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	d := harness.Start(t)
	before := rss(t, d.Cmd.Process.Pid)
	endless := func(w http.ResponseWriter) {
		_, _ = w.Write([]byte(`{"schemaVersion":2,"annotations":{"a":"`))
		for range 512 { // MiB, unless the reader closes earlier
			if _, err := w.Write(bytes.Repeat([]byte("a"), 1<<20)); err != nil {
				return
			}
		}
	}
	deep := `{"schemaVersion":2,"config":` + strings.Repeat("[", 1<<20) + strings.Repeat("]", 1<<20) + `}`
	var many strings.Builder
	many.WriteString(`{"schemaVersion":2,"manifests":[`)
	for i := range 20000 {
		fmt.Fprintf(&many, `{"mediaType":%q,"digest":%q,"size":10},`, ocispec.MediaTypeImageManifest, digest.FromString(fmt.Sprint(i)))
	}
	list := strings.TrimSuffix(many.String(), ",") + "]}"
	for name, c := range map[string]struct {
		mediaType string
		body      func(w http.ResponseWriter)
	}{
		"an endless manifest": {ocispec.MediaTypeImageManifest, endless},
		"an endless index":    {ocispec.MediaTypeImageIndex, endless},
		"a deep manifest":     {ocispec.MediaTypeImageManifest, func(w http.ResponseWriter) { _, _ = w.Write([]byte(deep)) }},
		"a long index":        {ocispec.MediaTypeImageIndex, func(w http.ResponseWriter) { _, _ = w.Write([]byte(list)) }},
		"a declared size":     {ocispec.MediaTypeImageManifest, func(w http.ResponseWriter) { w.Header().Set("Content-Length", "1099511627776") }},
	} {
		r.Interfere(func(w http.ResponseWriter, req *http.Request) bool {
			if !strings.Contains(req.URL.Path, "/manifests/") {
				return false
			}
			w.Header().Set("Content-Type", c.mediaType)
			if req.Method == http.MethodGet {
				c.body(w)
			}
			return true
		})
		if _, stderr, code := d.Try("pull", "--quiet", r.Host+"/some/box:1"); code != 1 || !strings.HasPrefix(stderr, "cleat: ") {
			t.Errorf("%s: %d, %s", name, code, stderr)
		}
		if grown := rss(t, d.Cmd.Process.Pid) - before; grown > 128<<20 {
			t.Errorf("%s: the daemon grew by %d MiB", name, grown>>20)
		}
		d.NoRemains(name)
	}
}

func TestDecompressors_UntrustedPATH_AreNotRun(t *testing.T) {
	dir := t.TempDir()
	proof := filepath.Join(dir, "ran")
	for _, name := range []string{"unpigz", "pigz", "igzip", "gzip", "gunzip", "zcat", "zstd", "unzstd", "zstdcat", "xz", "unxz", "tar"} {
		harness.Must(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho "+name+" >> "+proof+"\nexec cat\n"), 0o755))
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	d := harness.Start(t)
	layer := harness.TarOf(t, harness.BusyboxFiles(t))
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write(layer)
	harness.Must(t, err)
	harness.Must(t, z.Close())
	d.Cleat("image", "import", "--name", "zipped", harness.CodedArchive(t, ocispec.MediaTypeImageLayerGzip, [][]byte{packed.Bytes()}, [][]byte{layer}, harness.BusyboxConfig(), nil))
	d.Cleat("image", "convert", "--zstd", "zipped", "zstd")
	d.Cleat("image", "convert", "--gzip", "zstd", "back")
	for _, name := range []string{"zipped", "zstd", "back"} {
		if out := d.Cleat("run", "--rm", name, "echo", "runs"); out != "runs" {
			t.Errorf("%s: %q", name, out)
		}
	}
	if out, err := os.ReadFile(proof); err == nil {
		t.Errorf("programs of an untrusted PATH were run: %s", out)
	}
}
