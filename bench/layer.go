package main

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/cleatproject/cleat/archive"
)

// The layer of layerScenario: a quarter of its bytes in small files, the rest in large ones.
const (
	layerName  = "docker.io/library/cleatlayer:latest"
	smallFiles = 20_000
	largeFiles = 200
	meanSmall  = 13 << 10
	meanLarge  = 4 << 20
)

// layerScenario unpacks one layer of 1 GiB whose content is already in the daemon, as a client of the
// containerd API does: the daemon verifies and syncs it, and creates a snapshot. The bound is a
// decompressor and tar, which verify nothing.
//
// Nothing is removed before the benchmark's end: ext4 searches for inodes that were not deleted within the
// last minutes, one by one, which costs the next user more than everything else.
func layerScenario(c archive.Compression, decompress string) scenario {
	base := decompress + " | tar"
	return scenario{
		name: "layer-" + string(c), what: "unpack a single layer, 1 GiB unpacked, " + string(c), unit: "s", rounds: 3,
		targets: []target{{variant: "cleatd", base: base, limit: 1.2}},
		prepare: func(_ context.Context, e *environment) ([]variant, func() error, error) {
			dir, err := os.MkdirTemp(e.dir, "layer-")
			if err != nil {
				return nil, nil, err
			}
			l, err := buildLayer(dir, c)
			return []variant{
				{base, func(ctx context.Context) (float64, error) { return e.untarOne(ctx, dir, decompress, l.blob) }},
				{"cleatd", func(ctx context.Context) (float64, error) { return e.unpackOne(ctx, l) }},
			}, nil, err
		},
	}
}

// unpackOne makes cleatd unpack a present layer, in a new namespace.
func (e *environment) unpackOne(ctx context.Context, l single) (float64, error) {
	namespace := e.nextID(e.namespace + "-layer")
	for _, argv := range [][]string{
		e.cleatCommand("namespace", "create", namespace),
		e.cleatCommand("image", "import", "--no-unpack", "--namespace", namespace, l.archive),
	} {
		if err := e.done(ctx, argv); err != nil {
			return 0, err
		}
	}
	ms, err := e.timed(ctx, []string{"ctr", "--address", e.cleat.address, "--namespace", namespace, "snapshots", "unpack", l.manifest})
	return ms / 1000, err
}

// untarOne unpacks a layer to a plain directory and syncs.
func (e *environment) untarOne(ctx context.Context, dir, decompress, blob string) (float64, error) {
	out, err := os.MkdirTemp(dir, "tar-")
	if err != nil {
		return 0, err
	}
	script := decompress + ` -d -c "$2" | tar -x -C "$1" && sync -f "$1"`
	ms, err := e.timed(ctx, []string{"bash", "-o", "pipefail", "-c", script, "untar", out, blob})
	return ms / 1000, err
}

// single is an image of a single layer.
type single struct {
	archive, blob    string // files: the image's archive, its layer
	manifest, diffID string
}

// buildLayer writes the image's archive and its layer.
func buildLayer(dir string, c archive.Compression) (l single, err error) {
	l.archive, l.blob = filepath.Join(dir, "image.tar"), filepath.Join(dir, "layer")
	if l.diffID, err = writeLayer(l.blob, c); err != nil {
		return l, err
	}
	data, err := os.ReadFile(l.blob)
	if err != nil {
		return l, err
	}
	layer := layoutLayer{"application/vnd.oci.image.layer.v1.tar+" + string(c), l.diffID, data}
	l.manifest, err = writeLayout(l.archive, layerName, nil, []layoutLayer{layer})
	return l, err
}

// writeLayer writes a layer and returns its digest before compression.
func writeLayer(path string, c archive.Compression) (diffID string, err error) {
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 1<<20)
	zw, err := archive.CompressLevel(w, c, 0)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	if err := layerEntries(zw, sum); err != nil {
		return "", errors.Join(err, zw.Close())
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), errors.Join(zw.Close(), w.Flush())
}

// layerEntries writes the layer: directories of files, half of which cannot be compressed.
func layerEntries(w io.Writer, sum hash.Hash) error {
	tw := tar.NewWriter(io.MultiWriter(w, sum))
	r := rand.New(rand.NewChaCha8([32]byte{1}))
	noise := rand.NewChaCha8([32]byte{2})
	data := make([]byte, 2*meanLarge)
	each := smallFiles / largeFiles
	for i := range smallFiles + largeFiles {
		dir, mean := i/each, meanSmall
		if i%each == 0 {
			if err := tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("dir-%d/", dir), Mode: 0o755, Typeflag: tar.TypeDir}); err != nil {
				return err
			}
			mean = meanLarge
		}
		content := data[:r.IntN(2*mean)]
		for at := 0; at < len(content); at += 8 << 10 {
			_, _ = noise.Read(content[at:min(at+4<<10, len(content))]) // never fails
		}
		err := tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("dir-%d/file-%d", dir, i), Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg})
		if err != nil {
			return err
		}
		if _, err := tw.Write(content); err != nil {
			return err
		}
	}
	return tw.Close()
}
