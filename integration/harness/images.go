package harness

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ImageDocuments are an image's manifest and configuration.
func (d *Daemon) ImageDocuments(name string) (m ocispec.Manifest, cfg ocispec.Image, digest string) {
	d.T.Helper()
	var list []struct {
		Digest   string
		Manifest ocispec.Manifest
		Config   ocispec.Image
	}
	Must(d.T, json.Unmarshal([]byte(d.Cleat("image", "inspect", name)), &list))
	return list[0].Manifest, list[0].Config, list[0].Digest
}

// DigestOf returns the digest of a name.
func (d *Daemon) DigestOf(name string) string {
	d.T.Helper()
	var list []struct{ Name, Digest string }
	Must(d.T, json.Unmarshal([]byte(d.Cleat("image", "ls", "--format", "json")), &list))
	for _, i := range list {
		if i.Name == name || i.Name == "docker.io/library/"+name+":latest" {
			return i.Digest
		}
	}
	d.T.Fatalf("get image %s: %v", name, list)
	return ""
}

// onDisk lists the blobs and the snapshot directories below the daemon's root.
func (d *Daemon) onDisk() (blobs, snapshots []string) {
	d.T.Helper()
	err := filepath.WalkDir(filepath.Join(d.Root, "content", "blobs"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			blobs = append(blobs, filepath.Base(path))
		}
		return err
	})
	Must(d.T, err)
	dirs, err := os.ReadDir(filepath.Join(d.Root, "snapshots", "overlayfs"))
	Must(d.T, err)
	for _, e := range dirs {
		snapshots = append(snapshots, e.Name())
	}
	return blobs, snapshots
}

// Holds returns an error unless the root has these numbers of blobs and snapshots.
func (d *Daemon) Holds(blobs, snapshots int) error {
	b, s := d.onDisk()
	if len(b) != blobs || len(s) != snapshots {
		return fmt.Errorf("%d blobs and %d snapshots are on disk, want %d and %d: %q, %q", len(b), len(s), blobs, snapshots, b, s)
	}
	return nil
}

// Freed is an object of `gc --format json`.
type Freed struct {
	Freed []struct {
		Kind, Namespace, Name string
		Bytes                 int64
	}
	Bytes int64
}

// GC collects garbage and returns what was freed.
func (d *Daemon) GC(args ...string) (f Freed) {
	d.T.Helper()
	Must(d.T, json.Unmarshal([]byte(d.Cleat(append([]string{"gc", "--format", "json"}, args...)...)), &f))
	return f
}

// Layered imports a two-layer image under a name; the upper layer has a text.
func (d *Daemon) Layered(name, text string) {
	d.T.Helper()
	upper := TarOf(d.T, []File{{Name: "data", Dir: true, Mode: 0o755}, {Name: "data/text", Body: text, Mode: 0o644}})
	d.Cleat("image", "import", "--name", name, OCIArchive(d.T, [][]byte{TarOf(d.T, BusyboxFiles(d.T)), upper}, BusyboxConfig(), nil))
}

// Account imports an image with a passwd and a group file under a name.
func (d *Daemon) Account(name, user, passwd, group string, more ...File) {
	d.T.Helper()
	files := BusyboxFiles(d.T)
	for i, f := range files {
		switch f.Name {
		case "etc/passwd":
			files[i].Body = passwd
		case "etc/group":
			files[i].Body = group
		}
	}
	cfg := BusyboxConfig()
	cfg.User = user
	d.Cleat("image", "import", "--name", name, OCIArchive(d.T, [][]byte{TarOf(d.T, append(files, more...))}, cfg, nil))
}

// AwaitIngest waits until one ingest of this size is left, and this number of blobs is recorded: a completed ingest
// may not be recorded yet.
func (d *Daemon) AwaitIngest(size int64, blobs int) {
	d.T.Helper()
	d.Eventually("the bytes are stored", func() error {
		paths, err := filepath.Glob(filepath.Join(d.Root, "content", "ingest", "*", "data"))
		for _, p := range paths {
			if info, err := os.Stat(p); err == nil && info.Size() == size && len(paths) == 1 {
				return nil
			}
		}
		return fmt.Errorf("%q: %w", paths, err)
	})
	d.Eventually("the other blobs are recorded", func() error { return d.CtrLists(blobs, "content", "ls", "-q") })
}
