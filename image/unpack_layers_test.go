package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/imagetest"
	"github.com/cleatproject/cleat/image/layout"
	"github.com/cleatproject/cleat/internal/treecmp"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount"
)

// stacks are snapshots whose layers are filled in parallel.
type stacks struct{ *snapshots }

var _ image.Stacker = stacks{}

func (stacks) Layered() (userXattr, ok bool) { return false, true }

func (s stacks) CommitOn(ctx context.Context, name, key, parent string) error {
	var v metadata.Snapshot
	err := s.db.View(ctx, func(tx *metadata.Tx) (err error) { v, err = s.of(tx).Stat(key); return err })
	if err != nil {
		return err
	}
	usage, err := s.driver.Commit(ctx, v.ID)
	if err != nil {
		return err
	}
	return s.db.Update(ctx, func(tx *metadata.Tx) error {
		_, err := s.of(tx).CommitOn(name, key, parent, usage, nil)
		return err
	})
}

// layerTar packs entries; a name that ends in a slash is a directory, "a=b" a hard link a to b.
func layerTar(t *testing.T, mode int64, entries ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, e := range entries {
		hdr := &tar.Header{Name: e, Mode: mode, Uid: 5, Gid: 6, ModTime: time.Unix(7, 0), Typeflag: tar.TypeReg}
		var data []byte
		if from, to, ok := bytes.Cut([]byte(e), []byte("=")); ok {
			hdr.Name, hdr.Linkname, hdr.Typeflag = string(from), string(to), tar.TypeLink
		} else if e[len(e)-1] == '/' {
			hdr.Typeflag = tar.TypeDir
		} else {
			data = fmt.Append(nil, e, mode)
		}
		hdr.Size = int64(len(data))
		_, err := tw.Write(nil)
		if err := errors.Join(err, tw.WriteHeader(hdr)); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// show mounts a snapshot until the test ends.
func (s *snapshots) show(t *testing.T, name string) string {
	t.Helper()
	ms, err := s.Prepare(t.Context(), "show "+name, name)
	dir := t.TempDir()
	if err == nil {
		err = mount.All(ms, dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mount.UnmountAll(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestUnpack_ParallelAndSequential_GiveSameResult(t *testing.T) {
	var many [][]byte
	for i := range 12 {
		many = append(many, layerTar(t, 0o644, "./", "d/", fmt.Sprint("d/", i), fmt.Sprint("d/.wh.", i-2)))
	}
	for name, layers := range map[string][][]byte{
		"many": many,
		"roots without entries": {
			layerTar(t, 0o711, "./", "a"), layerTar(t, 0o600, "b"), layerTar(t, 0o644, "c"), layerTar(t, 0o1777, "./", "e"), layerTar(t, 0o600, "f"),
		},
		"directories of the layers below": {
			layerTar(t, 0o751, "d/", "d/sub/", "d/a"), layerTar(t, 0o600, "d/sub/b"), layerTar(t, 0o640, "d/", "d/c"), layerTar(t, 0o600, "d/sub/e"),
		},
		"links to the layers below": {
			layerTar(t, 0o644, "d/", "d/a"), layerTar(t, 0o644, "x"), layerTar(t, 0o644, "d/", "d/also=d/a"),
		},
		"opaque directories": {
			layerTar(t, 0o755, "d/", "d/a", "e/", "e/a"), layerTar(t, 0o755, "d/", "d/.wh..wh..opq", "d/b"), layerTar(t, 0o755, ".wh.e"), layerTar(t, 0o755, "e/", "e/c"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := imagetest.Files{}
			f.SetIndex(t, f.AddImage(t, "amd64", layers...))
			got, c, err := imagetest.ImportBytes(t, f.Tar(t), layout.ImportOptions{})
			if err != nil {
				t.Fatal(err)
			}
			one, other := newSnapshots(t), newSnapshots(t)
			want, err := image.Unpack(t.Context(), c, one, got[0].Target, image.UnpackOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time all exist
				u, err := image.Unpack(t.Context(), c, stacks{other}, got[0].Target, image.UnpackOptions{AtOnce: 3, ApplyOptions: image.ApplyOptions{Helpers: archive.Helpers()}})
				if err != nil || u.Snapshot != want.Snapshot {
					t.Fatalf("%s, %v; want %s", u.Snapshot, err, want.Snapshot)
				}
			}
			if n := other.count(t); n != len(layers) {
				t.Errorf("%d snapshots, want %d", n, len(layers))
			}
			treecmp.Compare(t, other.show(t, want.Snapshot), one.show(t, want.Snapshot))
		})
	}
}

func TestUnpack_FailedParallelLayer_KeepsLowerOnes(t *testing.T) {
	good := [][]byte{layerTar(t, 0o644, "a"), layerTar(t, 0o644, "b"), layerTar(t, 0o644, "c"), layerTar(t, 0o644, "d")}
	f := imagetest.Files{}
	m := ocispec.Manifest{Config: f.AddJSON(t, ocispec.MediaTypeImageConfig, imagetest.Config("amd64", good...))}
	for i, l := range good {
		if i == 2 {
			l = layerTar(t, 0o644, "another")
		}
		m.Layers = append(m.Layers, f.Add(ocispec.MediaTypeImageLayerGzip, imagetest.GZ(t, l)))
	}
	f.SetIndex(t, f.AddJSON(t, ocispec.MediaTypeImageManifest, m))
	got, c, err := imagetest.ImportBytes(t, f.Tar(t), layout.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := newSnapshots(t)
	_, err = image.Unpack(t.Context(), c, stacks{s}, got[0].Target, image.UnpackOptions{AtOnce: 4})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
	if n := s.count(t); n != 2 {
		t.Errorf("%d snapshots are left, want those of the two layers below", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := image.Unpack(ctx, c, stacks{newSnapshots(t)}, got[0].Target, image.UnpackOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
