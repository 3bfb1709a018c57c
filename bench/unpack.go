package main

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"
)

// The image of unpackScenario.
const (
	bigName      = "docker.io/library/cleatbig:latest"
	bigLayers    = 10
	filesALayer  = 100
	bytesAFile   = 1 << 20
	pieceOfBytes = 64 << 10
)

// unpackScenario imports and unpacks an image of 10 layers, 1 GiB unpacked, half of which cannot be
// compressed. The bound is the machine's limit: igzip and tar for two layers at a time.
func unpackScenario() scenario {
	return scenario{
		name: "unpack", what: "import and unpack an image of 10 layers, 1 GiB unpacked", unit: "s", rounds: 3,
		targets: []target{
			{variant: "cleat image import", base: "ctr images import", limit: 0.3},
			{variant: "cleat image import", base: "igzip | tar", limit: 1.5},
		},
		prepare: func(_ context.Context, e *environment) ([]variant, func() error, error) {
			dir, err := os.MkdirTemp(e.dir, "big-")
			if err != nil {
				return nil, nil, err
			}
			cleanup := func() error { return os.RemoveAll(dir) }
			archive, layers, err := buildBig(dir)
			if err != nil {
				return nil, cleanup, err
			}
			return []variant{
				{"igzip | tar", func(ctx context.Context) (float64, error) { return e.untar(ctx, dir, layers) }},
				{"cleat image import", func(ctx context.Context) (float64, error) {
					s, err := e.timed(ctx, e.cleatCommand("image", "import", archive))
					return s / 1000, errors.Join(err, e.done(ctx, e.cleatCommand("image", "rm", bigName)))
				}},
				{"ctr images import", func(ctx context.Context) (float64, error) {
					s, err := e.timed(ctx, e.ctrCommand("images", "import", archive))
					return s / 1000, errors.Join(err, e.done(ctx, e.ctrCommand("images", "rm", "--sync", bigName)))
				}},
			}, cleanup, nil
		},
	}
}

// done runs a command whose time does not count.
func (e *environment) done(ctx context.Context, argv []string) error {
	err := e.runToEnd(ctx, argv)
	return err
}

// untar unpacks the layers to plain directories, two at a time, and syncs.
func (e *environment) untar(ctx context.Context, dir string, layers []string) (float64, error) {
	out, err := os.MkdirTemp(dir, "tar-")
	if err != nil {
		return 0, err
	}
	const script = `unpack() { mkdir "$1/$2" && igzip -d -c "$3" | tar -x -C "$1/$2"; }
out=$1; shift; n=0
for l; do
  n=$((n + 1)); unpack "$out" $n "$l" & p=$!
  if [ -n "$q" ]; then wait $q || exit 1; fi
  q=$p
done
wait $q && sync -f "$out"`
	ms, err := e.timed(ctx, append([]string{"bash", "-c", script, "untar", out}, layers...))
	return ms / 1000, errors.Join(err, os.RemoveAll(out))
}

// buildBig writes the image's archive, and returns its layers as files too.
func buildBig(dir string) (archive string, layers []string, err error) {
	var parts []layoutLayer
	for i := range bigLayers {
		path := filepath.Join(dir, fmt.Sprintf("layer-%d.tar.gz", i))
		diffID, err := bigLayer(path, uint64(i))
		if err != nil {
			return "", nil, err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return "", nil, err
		}
		layers = append(layers, path)
		parts = append(parts, layoutLayer{"application/vnd.oci.image.layer.v1.tar+gzip", diffID, data})
	}
	archive = filepath.Join(dir, "big.tar")
	_, err = writeLayout(archive, bigName, nil, parts)
	return archive, layers, err
}

// bigLayer writes a layer of which every second 64 KiB cannot be compressed, and returns its digest
// before compression.
func bigLayer(path string, seed uint64) (diffID string, err error) {
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	zw, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return "", errors.Join(err, f.Close())
	}
	sum := sha256.New()
	tw := tar.NewWriter(io.MultiWriter(zw, sum))
	r := rand.NewChaCha8([32]byte{byte(seed)})
	data := make([]byte, bytesAFile)
	for i := range filesALayer {
		for at := 0; at < len(data); at += 2 * pieceOfBytes {
			_, _ = r.Read(data[at : at+pieceOfBytes]) // never fails
		}
		name := fmt.Sprintf("dir-%d/file-%d-%d", i%10, seed, i)
		if i < 10 {
			err = errors.Join(err, tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("dir-%d/", i), Mode: 0o755, Typeflag: tar.TypeDir}))
		}
		err = errors.Join(err, tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: bytesAFile, Typeflag: tar.TypeReg}))
		if err == nil {
			_, err = tw.Write(data)
		}
		if err != nil {
			return "", errors.Join(err, f.Close())
		}
	}
	err = errors.Join(tw.Close(), zw.Close(), w.Flush(), f.Close())
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), err
}
