package image_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/imagetest"
)

// layoutSource is a Source of the blobs of a layout. of, if not nil, replaces a blob's bytes.
type layoutSource struct {
	imagetest.Files
	of func(d digest.Digest, data string) io.Reader
}

func (l layoutSource) Fetch(_ context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	data := l.Files["blobs/sha256/"+desc.Digest.Encoded()][offset:]
	if l.of != nil {
		if r := l.of(desc.Digest, data); r != nil {
			return io.NopCloser(r), nil
		}
	}
	return io.NopCloser(strings.NewReader(data)), nil
}

// pullTo fetches an image and unpacks it in parallel.
func pullTo(ctx context.Context, c image.Content, src image.Source, s image.Snapshots, target ocispec.Descriptor, helpers ...archive.Helper) (u image.Unpacked, err error) {
	match := platforms.Only(platforms.MustParse("linux/amd64"))
	fetching, err := image.Fetch(ctx, c, src, target, image.FetchOptions{Platform: match})
	if err != nil {
		return u, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return fetching.Layers(ctx) })
	g.Go(func() (err error) {
		u, err = image.Unpack(ctx, c, s, target, image.UnpackOptions{
			Platform: match, From: fetching, ApplyOptions: image.ApplyOptions{Helpers: helpers},
		})
		return err
	})
	return u, g.Wait()
}

// random returns bytes that do not compress.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return string(b)
}

// found reports whether a file of that name is below dir.
func found(dir, name string) bool {
	there := errors.New("there")
	return filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == name {
			return there
		}
		return nil // may be removed concurrently
	}) != nil
}

// The beginning of a layer is unpacked before its end is sent: by this process and by a helper.
func TestUnpack_StartsBeforeDownloadEnds(t *testing.T) {
	for name, helpers := range map[string][]archive.Helper{"by this process": nil, "by a helper": archive.Helpers()} {
		for _, stacked := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " stacked ", stacked), func(t *testing.T) {
				tar := imagetest.Files{"a-first": "1", "b-long": random(8 << 20)}.Tar(t)
				f := imagetest.Files{}
				target := f.AddImage(t, "amd64", tar, imagetest.Files{"other": "2"}.Tar(t))
				layer := digest.FromBytes(imagetest.GZ(t, tar))
				snaps := newSnapshots(t)
				dir := t.TempDir()
				snaps.driver = overlayIn(t, dir)
				half := func(d digest.Digest, data string) io.Reader {
					if d != layer {
						return nil
					}
					n := len(data) / 2
					wait := readerFunc(func([]byte) (int, error) {
						for !found(dir, "a-first") { // never: the test ends by its time
							if err := t.Context().Err(); err != nil {
								return 0, err
							}
						}
						return 0, io.EOF
					})
					return io.MultiReader(strings.NewReader(data[:n]), wait, strings.NewReader(data[n:]))
				}
				c, _ := imagetest.NewContent(t)
				var s image.Snapshots = snaps
				if stacked {
					s = stacks{snaps}
				}
				if _, err := pullTo(t.Context(), c, layoutSource{f, half}, s, target, helpers...); err != nil {
					t.Fatal(err)
				}
				if n := snaps.count(t); n != 2 {
					t.Errorf("%d snapshots", n)
				}
			})
		}
	}
}

// A layer with wrong bytes, anywhere, leaves nothing, and the error blames the registry;
// a layer that is cut leaves nothing either.
func TestUnpack_WrongStream_LeavesNothing(t *testing.T) {
	tar := imagetest.Files{"a": "1", "b": random(1 << 20), "c": strings.Repeat("c", 1<<20)}.Tar(t)
	packed := imagetest.GZ(t, tar)
	f := imagetest.Files{}
	target := f.AddImage(t, "amd64", tar)
	layer := digest.FromBytes(packed)
	for _, at := range []int{0, 5, 100, len(packed) / 2, len(packed) - 5} {
		lie := func(d digest.Digest, data string) io.Reader {
			if d != layer {
				return nil
			}
			wrong := []byte(data)
			wrong[at] ^= 1
			return bytes.NewReader(wrong)
		}
		cut := func(d digest.Digest, data string) io.Reader {
			if d != layer {
				return nil
			}
			broken := readerFunc(func([]byte) (int, error) { return 0, fmt.Errorf("cut: %w", errdefs.ErrUnavailable) })
			return io.MultiReader(strings.NewReader(data[:at]), broken)
		}
		for name, tt := range map[string]struct {
			of func(digest.Digest, string) io.Reader
			is func(error) bool
		}{"lie": {lie, errdefs.IsFailedPrecondition}, "cut": {cut, errdefs.IsUnavailable}} {
			snaps := newSnapshots(t)
			c, store := imagetest.NewContent(t)
			_, err := pullTo(t.Context(), c, layoutSource{f, tt.of}, stacks{snaps}, target)
			if !tt.is(err) {
				t.Errorf("%s at %d: %v", name, at, err)
			}
			if n := snaps.count(t); n != 0 {
				t.Errorf("%s at %d leaves %d snapshots", name, at, n)
			}
			if _, err := store.Info(t.Context(), layer); !errdefs.IsNotFound(err) {
				t.Errorf("%s at %d: %v", name, at, err)
			}
			// The next attempt succeeds, and resumes after the valid bytes.
			if _, err := pullTo(t.Context(), c, layoutSource{f, nil}, stacks{snaps}, target); err != nil {
				t.Errorf("after %s at %d: %v", name, at, err)
			}
		}
	}
}

// Wrong bytes of an old ingest are unpacked first, and then discarded.
func TestUnpack_RestartedStream_DiscardsOldBytes(t *testing.T) {
	tar := imagetest.Files{"a": "1", "b": random(1 << 20)}.Tar(t)
	packed := imagetest.GZ(t, tar)
	f := imagetest.Files{}
	target := f.AddImage(t, "amd64", tar)
	layer := digest.FromBytes(packed)
	for name, left := range map[string][]byte{
		"no archive":      []byte(strings.Repeat("x", 1000)),
		"another archive": imagetest.GZ(t, imagetest.Files{"evil": random(1 << 20)}.Tar(t))[:1<<19],
	} {
		c, store := imagetest.NewContent(t)
		w, err := store.Writer(t.Context(), image.FetchRef(layer), content.WriterOptions{Expected: layer, Total: int64(len(packed))})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(left); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		snaps := newSnapshots(t)
		dir := t.TempDir()
		snaps.driver = overlayIn(t, dir)
		u, err := pullTo(t.Context(), c, layoutSource{f, nil}, snaps, target)
		if err != nil || u.Snapshot != digest.FromBytes(tar).String() {
			t.Errorf("%s: %q, %v", name, u.Snapshot, err)
		}
		if snaps.count(t) != 1 || found(dir, "evil") || !found(dir, "b") {
			t.Errorf("%s: %d snapshots, evil %t", name, snaps.count(t), found(dir, "evil"))
		}
	}
}

// readerFunc makes a function a reader.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
