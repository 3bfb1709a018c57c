package image_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/imagetest"
	"github.com/cleatproject/cleat/image/layout"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/snapshot"
	"github.com/cleatproject/cleat/snapshot/overlay"
)

// snapshots does the same as the daemon: records in the database, directories in the driver.
type snapshots struct {
	db     *metadata.DB
	driver snapshot.Driver
}

func newSnapshots(t testing.TB) *snapshots {
	t.Helper()
	db, err := metadata.Open(filepath.Join(t.TempDir(), "meta.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := db.Update(context.Background(), func(tx *metadata.Tx) error { return tx.Namespaces().Create("ns", nil) }); err != nil {
		t.Fatal(err)
	}
	return &snapshots{db, overlayIn(t, t.TempDir())}
}

func overlayIn(t testing.TB, dir string) snapshot.Driver {
	t.Helper()
	driver, err := overlay.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return driver
}

func (s *snapshots) of(tx *metadata.Tx) metadata.Snapshots {
	return tx.Snapshots("ns", s.driver.Name())
}

func (s *snapshots) Exists(ctx context.Context, name string) (bool, error) {
	err := s.db.View(ctx, func(tx *metadata.Tx) error { _, err := s.of(tx).Stat(name); return err })
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

func (s *snapshots) Prepare(ctx context.Context, key, parent string) ([]mount.Mount, error) {
	var parents []uint64
	err := s.db.View(ctx, func(tx *metadata.Tx) (err error) { parents, err = s.of(tx).ParentIDs(parent); return err })
	if err != nil {
		return nil, err
	}
	id, release := s.db.ReserveSnapshotID()
	defer release()
	if err := s.driver.Prepare(ctx, id, parents, snapshot.KindActive); err != nil {
		return nil, err
	}
	err = s.db.Update(ctx, func(tx *metadata.Tx) error {
		_, err := s.of(tx).Create(metadata.Snapshot{Key: key, Parent: parent, Kind: snapshot.KindActive, ID: id})
		return err
	})
	if err != nil {
		return nil, errors.Join(err, s.driver.Remove(context.WithoutCancel(ctx), id))
	}
	return s.driver.Mounts(ctx, id, parents, snapshot.KindActive)
}

func (s *snapshots) Commit(ctx context.Context, name, key string) error {
	var v metadata.Snapshot
	err := s.db.View(ctx, func(tx *metadata.Tx) (err error) { v, err = s.of(tx).Stat(key); return err })
	if err != nil {
		return err
	}
	usage, err := s.driver.Commit(ctx, v.ID)
	if err != nil {
		return err
	}
	return s.db.Update(ctx, func(tx *metadata.Tx) error { _, err := s.of(tx).Commit(name, key, usage, nil); return err })
}

func (s *snapshots) Remove(ctx context.Context, key string) error {
	var v metadata.Snapshot
	err := s.db.Update(ctx, func(tx *metadata.Tx) (err error) { v, err = s.of(tx).Remove(key); return err })
	if err != nil {
		return err
	}
	return s.driver.Remove(ctx, v.ID)
}

// count returns the number of snapshot records.
func (s *snapshots) count(t *testing.T) int {
	t.Helper()
	var n int
	err := s.db.View(context.Background(), func(tx *metadata.Tx) error {
		list, err := s.of(tx).List()
		n = len(list)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestUnpack(t *testing.T) {
	ctx := context.Background()
	f := imagetest.Files{}
	f.SetIndex(t, f.AddImage(t, "amd64",
		imagetest.Files{"usr/bin/tool": "1", "bin": "->usr/bin", "gone": "x", "dir/old": "x"}.Tar(t),
		imagetest.Files{"bin/tool2": "2", ".wh.gone": "", "dir/.wh..wh..opq": "", "dir/new": "y"}.Tar(t),
		imagetest.Files{"bin/tool3": "3"}.Tar(t)))
	got, c, err := imagetest.ImportBytes(t, f.Tar(t), layout.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := newSnapshots(t)
	for range 2 {
		u, err := image.Unpack(ctx, c, s, got[0].Target, image.UnpackOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if n := s.count(t); n != 3 {
			t.Errorf("%d snapshots, want 3", n)
		}
		if u.Config.Config.Cmd[0] != "/bin/amd64" {
			t.Errorf("configuration %+v", u.Config)
		}
		if diffIDs, err := image.RootFS(ctx, c, got[0].Target, nil); err != nil || image.ChainIDs(diffIDs)[2].String() != u.Snapshot {
			t.Errorf("snapshot %s, %v", u.Snapshot, err)
		}
		ms, err := s.Prepare(ctx, "run", u.Snapshot)
		if err != nil {
			t.Fatal(err)
		}
		root := t.TempDir()
		if err := mount.All(ms, root); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"bin/tool": "1", "bin/tool2": "2", "usr/bin/tool3": "3", "dir/new": "y"} {
			if text, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(text) != want {
				t.Errorf("%s holds %q, %v", name, text, err)
			}
		}
		for _, name := range []string{"gone", "dir/old"} {
			if _, err := os.Lstat(filepath.Join(root, name)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := errors.Join(mount.UnmountAll(root, 0), s.Remove(ctx, "run")); err != nil {
			t.Error(err)
		}
	}
}

func TestUnpack_RefusesBadImages(t *testing.T) {
	ctx := context.Background()
	good, other := imagetest.Files{"a": "1"}.Tar(t), imagetest.Files{"b": "2"}.Tar(t)
	make1 := func(config ocispec.Image, layers ...[]byte) func(f imagetest.Files) ocispec.Descriptor {
		return func(f imagetest.Files) ocispec.Descriptor {
			m := ocispec.Manifest{Config: f.AddJSON(t, ocispec.MediaTypeImageConfig, config)}
			for _, l := range layers {
				m.Layers = append(m.Layers, f.Add(ocispec.MediaTypeImageLayerGzip, l))
			}
			return f.AddJSON(t, ocispec.MediaTypeImageManifest, m)
		}
	}
	hostile := imagetest.Files{"../evil": "x"}.Tar(t)
	for name, tc := range map[string]struct {
		build func(imagetest.Files) ocispec.Descriptor
		class func(error) bool
	}{
		"diff id lies":     {make1(imagetest.Config("amd64", other), imagetest.GZ(t, good)), errdefs.IsInvalidArgument},
		"count differs":    {make1(imagetest.Config("amd64", good, other), imagetest.GZ(t, good)), errdefs.IsInvalidArgument},
		"hostile layer":    {make1(imagetest.Config("amd64", hostile), imagetest.GZ(t, hostile)), errdefs.IsInvalidArgument},
		"damaged layer":    {make1(imagetest.Config("amd64", good), imagetest.GZ(t, good)[:40]), errdefs.IsInvalidArgument},
		"another platform": {make1(imagetest.Config("s390x", good), imagetest.GZ(t, good)), errdefs.IsNotFound},
		"unknown layer": {func(f imagetest.Files) ocispec.Descriptor {
			m := ocispec.Manifest{Config: f.AddJSON(t, ocispec.MediaTypeImageConfig, imagetest.Config("amd64", good)), Layers: []ocispec.Descriptor{f.Add("application/x-encrypted", good)}}
			return f.AddJSON(t, ocispec.MediaTypeImageManifest, m)
		}, errdefs.IsNotImplemented},
	} {
		f := imagetest.Files{}
		f.SetIndex(t, tc.build(f))
		got, c, err := imagetest.ImportBytes(t, f.Tar(t), layout.ImportOptions{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s := newSnapshots(t)
		if _, err := image.Unpack(ctx, c, s, got[0].Target, image.UnpackOptions{}); !tc.class(err) {
			t.Errorf("%s: %v", name, err)
		}
		if n := s.count(t); n != 0 {
			t.Errorf("%s: %d snapshots left behind", name, n)
		}
	}
}
