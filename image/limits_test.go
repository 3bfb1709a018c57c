package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/archive"
	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/imagetest"
	"github.com/cleatproject/cleat/image/layout"
	"github.com/cleatproject/cleat/snapshot/overlay"
)

const mib = 1 << 20

// gzipZeros returns a gzip stream of mibs MiB of zeros, in members of 16 MiB, after some data.
func gzipZeros(t *testing.T, data []byte, mibs int) []byte {
	return append(imagetest.GZ(t, data), bytes.Repeat(imagetest.GZ(t, make([]byte, 16*mib)), mibs/16)...)
}

// zstdZeros returns the same in zstd: a block of 128 KiB takes 4 bytes.
func zstdZeros(t *testing.T, data []byte, mibs int) []byte {
	var b bytes.Buffer
	w, err := archive.CompressLevel(&b, archive.Zstd, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	const size = 128 << 10
	header := size<<3 | 1<<1 // run length
	block := []byte{byte(header & 0xff), byte(header >> 8 & 0xff), byte(header >> 16), 0}
	b.Write([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3}) // a window of 128 KiB
	b.Write(bytes.Repeat(block, 8*mibs-1))
	block[0] |= 1 // the last
	b.Write(block)
	return b.Bytes()
}

// fileHeader begins an archive with a file of mibs MiB.
func fileHeader(t *testing.T, mibs int64) []byte {
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Size: mibs * mib, Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// unpackBomb unpacks an image of two layers, the second of which is a bomb.
func unpackBomb(ctx context.Context, t *testing.T, s image.Snapshots, mediaType string, bomb []byte, opts image.UnpackOptions) error {
	t.Helper()
	good := imagetest.Files{"a": "1"}.Tar(t)
	f := imagetest.Files{}
	config := imagetest.Config("amd64", good)
	config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromString("whatever it may be"))
	m := ocispec.Manifest{Config: f.AddJSON(t, ocispec.MediaTypeImageConfig, config)}
	m.Layers = []ocispec.Descriptor{f.Add(ocispec.MediaTypeImageLayerGzip, imagetest.GZ(t, good)), f.Add(mediaType, bomb)}
	f.SetIndex(t, f.AddJSON(t, ocispec.MediaTypeImageManifest, m))
	got, c, err := imagetest.ImportBytes(t, f.Tar(t), layout.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = image.Unpack(ctx, c, s, got[0].Target, opts)
	return err
}

func TestUnpack_Bomb_IsRefusedAndLeavesNothing(t *testing.T) {
	limited := image.Limits{Bytes: 128 * mib}
	gzipped, zipped := ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd
	for name, tc := range map[string]struct {
		mediaType string
		bomb      []byte
		limits    image.Limits
	}{
		"gzip, a file":              {gzipped, gzipZeros(t, fileHeader(t, 120), 256), limited},
		"gzip, after the archive":   {gzipped, gzipZeros(t, imagetest.Files{"f": "x"}.Tar(t), 256), limited},
		"gzip, by the default":      {gzipped, gzipZeros(t, imagetest.Files{"f": "x"}.Tar(t), 4<<10+16), image.Limits{}},
		"zstd, a file":              {zipped, zstdZeros(t, fileHeader(t, 120), 1<<20), limited},
		"zstd, after the archive":   {zipped, zstdZeros(t, imagetest.Files{"f": "x"}.Tar(t), 1<<20), limited},
		"a terabyte by its header":  {zipped, zstdZeros(t, fileHeader(t, 1<<20), 1<<20), image.Limits{}},
		"a terabyte, whatever size": {zipped, zstdZeros(t, fileHeader(t, 1<<20), 16), image.Limits{Ratio: 1 << 40}},
	} {
		for how, helpers := range map[string][]archive.Helper{"alone": nil, "helped": archive.Helpers()} {
			if how == "helped" && tc.mediaType != gzipped || how == "alone" && name == "gzip, by the default" {
				continue // no helper for it; one run over 4 GiB is enough
			}
			t.Run(name+"/"+how, func(t *testing.T) {
				s := newSnapshots(t)
				opts := image.UnpackOptions{ApplyOptions: image.ApplyOptions{Limits: tc.limits, Helpers: helpers}}
				err := unpackBomb(t.Context(), t, stacks{s}, tc.mediaType, tc.bomb, opts)
				if !errdefs.IsInvalidArgument(err) || !errors.Is(err, archive.ErrLimit) || !strings.Contains(err.Error(), "[unpack]") {
					t.Errorf("got %v", err)
				}
				if n := s.count(t); n != 1 {
					t.Errorf("%d snapshots are left, want that of the layer below", n)
				}
			})
		}
	}
}

// If the disk is full, the files of the layer are removed again.
func TestUnpack_FullDisk_LeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	driver, err := overlay.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := newSnapshots(t)
	s.driver = driver
	err = unpackBomb(t.Context(), t, s, ocispec.MediaTypeImageLayerZstd, zstdZeros(t, fileHeader(t, 1024), 1024), image.UnpackOptions{})
	if !errdefs.IsResourceExhausted(err) {
		t.Errorf("got %v", err)
	}
	if n := s.count(t); n != 1 {
		t.Errorf("%d snapshots are left, want that of the layer below", n)
	}
	if found, err := filepath.Glob(dir + "/*/fs/f"); err != nil || len(found) > 0 {
		t.Errorf("%v, %v", found, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Bfree*10 < st.Blocks*9 {
		t.Errorf("%d of %d blocks are free, %v", st.Bfree, st.Blocks, err)
	}
}

// An unlimited layer of a terabyte ends with the context, and leaves nothing.
func TestUnpack_Bomb_EndsWithContext(t *testing.T) {
	for name, tc := range map[string]struct {
		mediaType string
		bomb      []byte
	}{
		"zstd": {ocispec.MediaTypeImageLayerZstd, zstdZeros(t, imagetest.Files{"f": "x"}.Tar(t), 1<<20)},
		"gzip": {ocispec.MediaTypeImageLayerGzip, gzipZeros(t, imagetest.Files{"f": "x"}.Tar(t), 64<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSnapshots(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			opts := image.UnpackOptions{ApplyOptions: image.ApplyOptions{Limits: image.Limits{Bytes: 1 << 50, Ratio: 1 << 40}, Helpers: archive.Helpers()}}
			opts.Watch = func(_ ocispec.Descriptor, state image.State) {
				if state == image.StateUnpacked {
					cancel() // while the second, which is the bomb, is at work
				}
			}
			if err := unpackBomb(ctx, t, stacks{s}, tc.mediaType, tc.bomb, opts); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			if n := s.count(t); n != 1 {
				t.Errorf("%d snapshots are left, want that of the layer below", n)
			}
		})
	}
}
