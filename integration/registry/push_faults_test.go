package registry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
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

// cutBody breaks a connection after n bytes of a request's body.
type cutBody struct {
	io.ReadCloser
	left int
	cut  func()
}

func (c *cutBody) Read(p []byte) (int, error) {
	if c.left == 0 {
		c.cut()
		return 0, errors.New("cut")
	}
	n, err := c.ReadCloser.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// A blob is pushed by chunks, and resumed after a connection that breaks in the middle of one. The registry
// determines the offset: this one drops an interrupted upload (image/registry tests those that do not).
func TestPush_ConnectionBreaks_Resumes(t *testing.T) {
	t.Parallel()
	const chunk = 1 << 20
	path := filepath.Join(t.TempDir(), "config.toml")
	harness.Must(t, os.WriteFile(path, fmt.Appendf(nil, "version = 1\nregistry_upload_chunk = %d\n", chunk), 0o600))
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	layers := harness.LayersOf(t, 1, 4<<20)
	big := layers[1]
	r.Image("from/box", "1", harness.Amd64, layers[1])
	d := harness.Start(t, "--config", path)
	d.Cleat("pull", "--no-unpack", r.Host+"/from/box:1")
	d.Cleat("image", "tag", r.Host+"/from/box:1", "local/box:1")
	to := harness.StartRegistry(t, harness.RegistryOptions{})
	var mu sync.Mutex
	var patches, states []string
	to.Interfere(func(w http.ResponseWriter, req *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if !strings.Contains(req.URL.Path, "/blobs/uploads/") {
			return false
		}
		switch req.Method {
		case http.MethodPatch:
			patches = append(patches, req.Header.Get("Content-Range"))
			if len(patches) == 2 {
				req.Body = &cutBody{req.Body, chunk / 2, func() {
					if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
						_ = conn.Close()
					}
				}}
			}
		case http.MethodGet:
			states = append(states, req.URL.Path)
		}
		return false
	})
	ref := to.Host + "/to/box:1"
	d.Cleat("push", ref, "local/box:1")
	mu.Lock()
	if len(states) == 0 || len(patches) < 3 || patches[0] != fmt.Sprintf("0-%d", chunk-1) || patches[1] != fmt.Sprintf("%d-%d", chunk, 2*chunk-1) {
		t.Errorf("chunks %q, %d requests for the state", patches, len(states))
	}
	if !strings.HasSuffix(patches[len(patches)-1], fmt.Sprintf("-%d", len(big)-1)) {
		t.Errorf("the last chunk is %s of %d", patches[len(patches)-1], len(big))
	}
	mu.Unlock()
	resp, err := to.Direct.Get("http://registry/v2/to/box/blobs/" + digest.FromBytes(big).String())
	harness.Must(t, err)
	defer resp.Body.Close()
	if got, err := digest.FromReader(resp.Body); err != nil || got != digest.FromBytes(big) {
		t.Errorf("the registry has %s, %v", got, err)
	}
}

// TestPush_WithReferrers copies an image, its signature and a note on the signature from one registry to another,
// without the referrers of other images.
func TestPush_WithReferrers(t *testing.T) {
	t.Parallel()
	r := harness.StartRegistry(t, harness.RegistryOptions{})
	img := r.Image("from/box", "1", harness.Amd64, harness.LayersOf(t, 1, 1<<10)[1])
	stray := r.Image("from/stray", "1", harness.Amd64, harness.LayersOf(t, 1, 1<<11)[1])
	artifact := func(tag, body string, subject ocispec.Descriptor) ocispec.Descriptor {
		return r.Document("from/box", tag, ocispec.MediaTypeImageManifest, ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "example/" + tag,
			Config:  r.Blob("from/box", ocispec.MediaTypeEmptyJSON, []byte("{}")),
			Layers:  []ocispec.Descriptor{r.Blob("from/box", "text/plain", []byte(body))},
			Subject: &subject,
		})
	}
	signature := artifact("signature", "signed", img)
	artifact("note", "noted", signature)
	artifact("other", "of something else", stray)
	d := harness.Start(t)
	for _, tag := range []string{"1", "signature", "note", "other"} {
		d.Cleat("pull", "--no-unpack", "--all-platforms", r.Host+"/from/box:"+tag)
	}
	to := harness.StartRegistry(t, harness.RegistryOptions{})
	d.Cleat("push", to.Host+"/plain/box:1", r.Host+"/from/box:1")
	d.Cleat("push", "--referrers", to.Host+"/to/box:1", r.Host+"/from/box:1")
	for of, want := range map[string]string{
		to.Host + "/plain/box:1":                         "",
		to.Host + "/to/box:1":                            "example/signature",
		to.Host + "/to/box@" + signature.Digest.String(): "example/note",
	} {
		out := d.Cleat("image", "referrers", of)
		if got := strings.Count(out, "example/"); want == "" && got != 0 || want != "" && (got != 1 || !strings.Contains(out, want)) {
			t.Errorf("referrers of %s:\n%s", of, out)
		}
	}
}
