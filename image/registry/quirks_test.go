package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/image/registry/registrytest"
)

// sample is an image of two layers, one of them fetched by ranges and sent by chunks.
type sample struct {
	manifest ocispec.Descriptor
	raw      []byte
	blobs    []ocispec.Descriptor
	data     map[digest.Digest][]byte
}

// bigLayer is the size in bytes of the one, and samplePiece that of its parts.
const bigLayer, samplePiece = 6000, 4000

func newSample(mediaType, configType string) *sample {
	s := &sample{data: make(map[digest.Digest][]byte)}
	add := func(mediaType string, data []byte) ocispec.Descriptor {
		d := describe(mediaType, data)
		s.blobs, s.data[d.Digest] = append(s.blobs, d), data
		return d
	}
	m := map[string]any{
		"schemaVersion": 2, "config": add(configType, []byte(`{"architecture":"amd64","os":"linux"}`)),
		"layers": []ocispec.Descriptor{add(ocispec.MediaTypeImageLayer, []byte("a small one")), add(ocispec.MediaTypeImageLayer, bytes.Repeat([]byte("0123456789abcdef"), bigLayer/16))},
	}
	if mediaType == dockerManifest {
		m["mediaType"] = mediaType // Docker's types require it
	}
	s.raw, _ = json.Marshal(m) // plain values
	s.manifest = describe(mediaType, s.raw)
	return s
}

// putInto puts the image into a registry directly.
func (s *sample) putInto(r *registrytest.Registry, repository, tag string) {
	for _, data := range s.data {
		r.AddBlob(repository, data)
	}
	r.AddDocument(repository, tag, s.manifest.MediaType, s.raw)
}

// pull fetches all of an image, by its tag or its digest.
func (s *sample) pull(t *testing.T, r *Repository) error {
	desc, err := r.Resolve(t.Context())
	if err != nil {
		return err
	}
	if desc.Digest != s.manifest.Digest || desc.MediaType != s.manifest.MediaType || desc.Size != s.manifest.Size {
		return fmt.Errorf("resolved %v, want %v", desc, s.manifest)
	}
	for _, d := range append([]ocispec.Descriptor{desc}, s.blobs...) {
		rc, err := r.Fetch(t.Context(), d, 0)
		if err != nil {
			return err
		}
		got, err := io.ReadAll(rc)
		_ = rc.Close()
		if err != nil || digest.FromBytes(got) != d.Digest {
			return fmt.Errorf("%s: %d bytes: %w", d.Digest, len(got), err)
		}
	}
	return nil
}

// push sends all of an image.
func (s *sample) push(t *testing.T, r *Repository, from string) error {
	for _, d := range s.blobs {
		exists, err := r.Exists(t.Context(), d)
		if err != nil {
			return err
		}
		if exists {
			continue
		}
		if _, err := r.PushBlob(t.Context(), d, from, func(offset int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(s.data[d.Digest][offset:])), nil
		}); err != nil {
			return err
		}
	}
	return r.PushManifest(t.Context(), s.manifest, s.raw, true)
}

// arrived checks that a repository has the complete image.
func (s *sample) arrived(r *registrytest.Registry, repository, tag string) error {
	for d, data := range s.data {
		if got, ok := r.Blob(repository, d); !ok || !bytes.Equal(got, data) {
			return fmt.Errorf("blob %s did not arrive", d)
		}
	}
	if doc, ok := r.Tagged(repository, tag); !ok || !bytes.Equal(doc.Raw, s.raw) || doc.MediaType != s.manifest.MediaType {
		return fmt.Errorf("the manifest did not arrive")
	}
	return nil
}

// quirkClient returns a client for tests with a registry that has a quirk.
func quirkClient(q registrytest.Quirk) *Client {
	opts := Options{Backoff: time.Millisecond, Chunk: samplePiece, Ranges: Ranges{From: samplePiece, AtOnce: 2, Loopback: true, Piece: samplePiece}}
	if q.Silent { // only then: a busy machine is silent as well
		opts.Probe = 50 * time.Millisecond
	}
	return New(opts)
}

// runQuirk runs all operations on samples at a registry that has a quirk; or, if only is given, the
// one of that name.
func runQuirk(t *testing.T, q registrytest.Quirk, samples map[string]*sample, only string) error {
	reg, err := registrytest.New(q)
	if err != nil {
		return err
	}
	defer reg.Close()
	for tag, s := range samples {
		s.putInto(reg, "a/b", tag)
		pull := func(r *Repository) error { return s.pull(t, r) }
		push := func(from string) func(*Repository) error {
			return func(r *Repository) error { return s.push(t, r, from) }
		}
		for _, op := range []struct {
			name, repository, target string
			do                       func(*Repository) error
			arrives                  bool
		}{
			{"pull", "a/b", ":" + tag, pull, false},
			{"pull by digest", "a/b", "@" + s.manifest.Digest.String(), pull, false},
			{"push", "c/d", ":" + tag, push(""), true},
			{"push again", "c/d", ":" + tag, push(""), true},
			{"push from another repository", "e/f", ":" + tag, push("a/b"), true},
			{"push from one without it", "g/h", ":" + tag, push("not/there"), true},
			{"push to where it comes from", "a/b", ":" + tag, push("a/b"), true},
		} {
			if only != "" && only != op.name {
				continue
			}
			ref, err := Parse(reg.Host + "/" + op.repository + op.target)
			if err != nil {
				return err
			}
			r, err := quirkClient(q).Repository(ref, Access{Credential: Credential{Username: registrytest.User, Password: registrytest.Password}})
			if err != nil {
				return err
			}
			if err = op.do(r); err == nil && op.arrives {
				err = s.arrived(reg, op.repository, tag)
			}
			r.Close()
			if err != nil {
				return fmt.Errorf("%s, %s: %w\n\t%s", op.name, tag, err, strings.Join(reg.Requests(), "\n\t"))
			}
		}
	}
	return nil
}

func TestQuirksOfRegistries(t *testing.T) {
	t.Parallel()
	samples := map[string]*sample{
		"oci":    newSample(ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig),
		"docker": newSample(dockerManifest, "application/vnd.docker.container.image.v1+json"),
	}
	for _, q := range append(registrytest.Quirks(), registrytest.Quirk{Group: "none", Name: "none"}) {
		t.Run(q.Group+"/"+q.Name, func(t *testing.T) {
			if err := runQuirk(t, q, samples, ""); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestQuirksOfRegistries_Combined combines each quirk with each of another group, except those with a
// time-out: for one operation, for all with CLEAT_FULL.
func TestQuirksOfRegistries_Combined(t *testing.T) {
	t.Parallel()
	operations := []string{"pull", "push from another repository", "push from one without it"}
	samples := map[string]*sample{"oci": newSample(ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig)}
	quirks := registrytest.Quirks()
	for i, q := range quirks {
		t.Run(q.Group+"/"+q.Name, func(t *testing.T) {
			t.Parallel()
			for j, o := range quirks[i+1:] {
				if q.Group == o.Group || q.Silent || o.Silent {
					continue
				}
				only := operations[(i+j)%len(operations)]
				if os.Getenv("CLEAT_FULL") != "" {
					only = ""
				}
				if err := runQuirk(t, q.And(o), samples, only); err != nil {
					t.Errorf("%s: %v", q.And(o).Name, err)
				}
			}
		})
	}
}
