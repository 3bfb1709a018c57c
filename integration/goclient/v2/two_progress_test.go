package goclient

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/core/transfer/archive"
	"github.com/containerd/containerd/v2/core/transfer/image"
	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/integration/harness"
)

// tree collects the parts named by the progress of a transfer, each with its parents.
type tree struct {
	host  string
	mu    sync.Mutex
	parts map[string]map[string]bool // the parents by part
	early []string                   // parts that were mentioned before a parent of theirs
}

func (o *tree) option() transfer.Opt {
	o.parts = make(map[string]map[string]bool)
	return transfer.WithProgress(func(p transfer.Progress) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if p.Name == "" {
			return
		}
		if o.parts[p.Name] == nil {
			o.parts[p.Name] = make(map[string]bool)
		}
		for _, parent := range p.Parents {
			o.parts[p.Name][parent] = true
			if o.parts[parent] == nil {
				o.early = append(o.early, p.Event+" "+p.Name+" before "+parent)
			}
		}
	})
}

// lines returns one line for each part, with the names of known.
func (o *tree) lines(transfer string, known map[digest.Digest]string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	word := func(name string) string {
		if kind, d, ok := strings.Cut(name, "-sha256:"); ok {
			return kind + " (" + known[digest.Digest("sha256:"+d)] + ")"
		}
		return strings.ReplaceAll(name, o.host, "HOST")
	}
	var out []string
	for name, parents := range o.parts {
		var up []string
		for p := range parents {
			up = append(up, word(p))
		}
		slices.Sort(up)
		out = append(out, fmt.Sprintf("%s: %s below [%s]", transfer, word(name), strings.Join(up, ", ")))
	}
	sort.Strings(out)
	return out
}

// progressTable returns the progress of each kind of transfer as the tree of an image's parts.
func progressTable(ctx context.Context, t *testing.T, c *containerd.Client, registryHost string) []string {
	t.Helper()
	raw, known := nameArchive(t, []map[string]string{{fullName: "example.com/box:1"}, {fullName: "example.com/other:1"}})
	saved, savedKnown := nameArchive(t, []string{"example.com/saved:1"})
	var table []string
	remote := func(name string) *registry.OCIRegistry {
		r, err := registry.NewOCIRegistry(ctx, registryHost+name, registry.WithDefaultScheme("http"))
		harness.Must(t, err)
		return r
	}
	step := func(what string, known map[digest.Digest]string, in context.Context, from, to any) {
		t.Helper()
		o := tree{host: registryHost}
		harness.Must(t, c.Transfer(in, from, to, o.option()))
		table = append(table, o.lines(what, known)...)
		if len(o.early) > 0 {
			t.Errorf("%s reports parts before their parents: %q", what, o.early)
		}
	}
	one, two := namespaces.WithNamespace(ctx, "progress-1"), namespaces.WithNamespace(ctx, "progress-2")
	unpack := image.WithUnpack(platforms.DefaultSpec(), "overlayfs")
	step("import", known, one, archive.NewImageImportStream(bytes.NewReader(raw), ""), image.NewStore("example.com/index:1", image.WithNamedPrefix("import", true), unpack))
	step("import of a saved image", savedKnown, one, archive.NewImageImportStream(bytes.NewReader(saved), ""), image.NewStore("", image.WithNamedPrefix("import", true), unpack))
	step("push", known, one, image.NewStore("example.com/box:1"), remote("/progress/box:1"))
	step("push of an index", known, one, image.NewStore("example.com/index:1"), remote("/progress/index:1"))
	step("pull", known, two, remote("/progress/box:1"), image.NewStore("example.com/box:1", unpack))
	step("pull of an index", known, two, remote("/progress/index:1"), image.NewStore("example.com/index:1"))
	return table
}

// TestTransfer_Progress compares the reported tree with that of containerd 2.4.2.
func TestTransfer_Progress(t *testing.T) {
	f := start(t)
	want, err := os.ReadFile(filepath.Join("testdata", "progress.txt"))
	f.must(err)
	got := progressTable(f.ctx, t, f.client, harness.StartRegistry(t, harness.RegistryOptions{}).Host)
	// cleat may report more parts, such as the layers that an import unpacks.
	for _, line := range strings.Split(strings.TrimSpace(string(want)), "\n") {
		if !slices.Contains(got, line) {
			t.Errorf("containerd 2.4.2 reports %q, cleat\n%s", line, strings.Join(got, "\n"))
		}
	}
}

// TestTransfer_StreamToStream receives the bytes that it sends.
func TestTransfer_StreamToStream(t *testing.T) {
	f := start(t)
	for _, size := range []int{0, 1, 99, 1 << 20, 5<<20 + 7} {
		body := bytes.Repeat([]byte("echo!"), size/5+1)[:size]
		var out collected
		f.must(f.client.Transfer(f.ctx, archive.NewImageImportStream(bytes.NewReader(body), ""), archive.NewImageExportStream(&out, "")))
		if !bytes.Equal(out.Bytes(), body) {
			t.Errorf("%d of %d bytes returned", out.Len(), size)
		}
	}
}
