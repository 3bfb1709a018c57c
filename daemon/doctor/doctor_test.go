package doctor

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/daemon"
	"github.com/cleatproject/cleat/daemon/config"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/snapshot"
)

// patient returns the directories of a daemon with one image of one manifest, one container and
// one snapshot.
func patient(t *testing.T) config.Config {
	t.Helper()
	cfg := config.Default()
	dir := t.TempDir()
	cfg.Root, cfg.State = filepath.Join(dir, "root"), filepath.Join(dir, "state")
	cfg.Address = filepath.Join(cfg.State, "c.sock")
	if err := cfg.Complete(); err != nil {
		t.Fatal(err)
	}
	if err := daemon.MakeDirs(cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := daemon.MakeUUID(filepath.Join(cfg.Root, daemon.UUIDName)); err != nil {
		t.Fatal(err)
	}
	manifest := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` +
		digest.FromString("{}").String() + `","size":2},"layers":[]}`)
	store, err := content.Open(filepath.Join(cfg.Root, "content"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{manifest, []byte("{}")} {
		ingest(t, store, b)
	}
	db, err := metadata.Open(filepath.Join(cfg.Root, daemon.DatabaseName))
	if err != nil {
		t.Fatal(err)
	}
	id, release := db.ReserveSnapshotID()
	defer release()
	if err := os.MkdirAll(filepath.Join(cfg.Root, "snapshots", "overlayfs", "1"), 0o700); err != nil {
		t.Fatal(err)
	}
	err = db.Update(context.Background(), func(tx *metadata.Tx) error {
		if err := tx.Namespaces().Create("ns", nil); err != nil {
			return err
		}
		for _, b := range [][]byte{manifest, []byte("{}")} {
			if _, err := tx.Content("ns").Create(metadata.Blob{Digest: digest.FromBytes(b), Size: int64(len(b))}); err != nil {
				return err
			}
		}
		_, err := tx.Images("ns").Create(metadata.Image{Name: "img", Target: ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(manifest), Size: int64(len(manifest)),
		}})
		if err != nil {
			return err
		}
		if _, err := tx.Containers("ns").Create(metadata.Container{ID: "c", Runtime: metadata.Runtime{Name: "r"}}); err != nil {
			return err
		}
		_, err = tx.Snapshots("ns", "overlayfs").Create(metadata.Snapshot{Key: "c", Kind: snapshot.KindActive, ID: id})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func ingest(t *testing.T, store *content.Store, b []byte) {
	t.Helper()
	ctx := context.Background()
	w, err := store.Writer(ctx, digest.FromBytes(b).String(), content.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(ctx, int64(len(b)), digest.FromBytes(b)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func doctorOn(t *testing.T, cfg config.Config, repair bool) (int, string) {
	t.Helper()
	var out bytes.Buffer
	n, err := Run(context.Background(), cfg, Options{Repair: repair}, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return n, out.String()
}

// tree returns every file below a directory with its mode and bytes.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		out[path] = info.Mode().String()
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			out[path] += string(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDoctor(t *testing.T) {
	const document = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" // of "{}"
	blob := func(cfg config.Config) string { return filepath.Join(cfg.Root, "content", "blobs", "sha256", document) }
	meta := func(cfg config.Config) string { return filepath.Join(cfg.Root, daemon.DatabaseName) }
	for name, tc := range map[string]struct {
		harm   func(cfg config.Config) error
		says   string
		stands int // findings after a repair
	}{
		"fine":             {func(config.Config) error { return nil }, "nothing is wrong", 0},
		"database cut off": {func(c config.Config) error { return os.Truncate(meta(c), 5000) }, "database", 0},
		"database empty":   {func(c config.Config) error { return os.Truncate(meta(c), 0) }, "meta page", 0},
		"database missing": {func(c config.Config) error { return os.Remove(meta(c)) }, "missing", 0},
		"blob altered":     {func(c config.Config) error { return os.WriteFile(blob(c), []byte("[]"), 0o600) }, "damaged", 0},
		"blob missing":     {func(c config.Config) error { return os.Remove(blob(c)) }, "not whole on disk", 0},
		"mode":             {func(c config.Config) error { return os.Chmod(c.Root, 0o755) }, "0755", 0},
		"directory missing": {func(c config.Config) error {
			return os.Remove(filepath.Join(c.Root, "snapshots", "overlayfs", "1"))
		}, "has no directory", 1},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := patient(t)
			if err := tc.harm(cfg); err != nil {
				t.Fatal(err)
			}
			before := tree(t, filepath.Dir(cfg.Root))
			n, out := doctorOn(t, cfg, false)
			if (n == 0) != (name == "fine") || !strings.Contains(out, tc.says) {
				t.Fatalf("%d findings:\n%s", n, out)
			}
			for path, is := range tree(t, filepath.Dir(cfg.Root)) {
				if before[path] != is {
					t.Errorf("looking changed %s", path)
				}
			}
			if n, out := doctorOn(t, cfg, true); n != tc.stands {
				t.Fatalf("%d findings stand after the repair:\n%s", n, out)
			}
			if n, out := doctorOn(t, cfg, false); n != tc.stands {
				t.Fatalf("%d findings the second time:\n%s", n, out)
			}
		})
	}
}

// TestDoctor_KeepsReplacedFiles damages the checksum of one record: the others are kept, and so is
// the damaged file.
func TestDoctor_KeepsReplacedFiles(t *testing.T) {
	cfg := patient(t)
	path := filepath.Join(cfg.Root, daemon.DatabaseName)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.ReplaceAll(raw, []byte("\x0a\x01c\x10"), []byte("\x0a\x01x\x10")) // the snapshot's key in its record
	damaged = bytes.ReplaceAll(damaged, []byte("\x0a\x01c\x18"), []byte("\x0a\x01x\x18"))
	if bytes.Equal(raw, damaged) {
		t.Fatal("nothing to damage was found")
	}
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	if n, out := doctorOn(t, cfg, true); n != 0 || !strings.Contains(out, "lost:") || !strings.Contains(out, metadata.RecoveredNamespace) {
		t.Fatalf("%d findings:\n%s", n, out)
	}
	kept, err := filepath.Glob(path + ".damaged-*")
	if err != nil || len(kept) != 1 {
		t.Fatalf("the damaged file is kept as %v, %v", kept, err)
	}
	if got, err := os.ReadFile(kept[0]); err != nil || !bytes.Equal(got, damaged) {
		t.Error("the damaged file was changed")
	}
	db, err := metadata.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	err = db.View(context.Background(), func(tx *metadata.Tx) error {
		if _, err := tx.Containers("ns").Get("c"); err != nil {
			return err
		}
		if _, err := tx.Images("ns").Get("img"); err != nil {
			return err
		}
		_, err := tx.Snapshots(metadata.RecoveredNamespace, "overlayfs").Stat("lost-1")
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestDoctor_DaemonRunning_DoesNotRepair(t *testing.T) {
	cfg := patient(t)
	unlock, err := daemon.LockDir(t.Context(), cfg.State)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unlock() }()
	var out bytes.Buffer
	if _, err := Run(context.Background(), cfg, Options{Repair: true}, &out); err == nil || !strings.Contains(daemon.Hint(err), "stop the other cleatd") {
		t.Errorf("got %v", err)
	}
}
