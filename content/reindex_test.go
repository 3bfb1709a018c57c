package content_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
)

// store commits a blob and returns its digest and file.
func store(t *testing.T, s *content.Store, dir, data string) (digest.Digest, string) {
	t.Helper()
	w := writer(t, s, "blob "+data, content.WriterOptions{})
	write(t, w, data)
	d := w.Digest()
	if err := w.Commit(context.Background(), 0, ""); err != nil {
		t.Fatal(err)
	}
	return d, filepath.Join(dir, "blobs", d.Algorithm().String(), d.Encoded())
}

func TestReindex_FindsDamage(t *testing.T) {
	ctx := context.Background()
	s, dir := open(t)
	good, _ := store(t, s, dir, "good")
	empty, _ := store(t, s, dir, "")
	flipped, flippedPath := store(t, s, dir, "flipped")
	short, shortPath := store(t, s, dir, "cut short")
	link := digest.FromString("link")
	linkPath := filepath.Join(dir, "blobs/sha256", link.Encoded())
	stray := filepath.Join(dir, "blobs/sha512", "notes.txt")
	err := errors.Join(
		os.Chmod(flippedPath, 0o600), os.WriteFile(flippedPath, []byte("flopped"), 0o600),
		os.Truncate(shortPath, 3), os.Symlink("/etc/passwd", linkPath), os.WriteFile(stray, nil, 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []digest.Digest{flipped, short} {
		if err := s.Verify(ctx, d); !errdefs.IsDataLoss(err) {
			t.Errorf("verify %s: %v", d, err)
		}
	}
	if err := s.Verify(ctx, good); err != nil {
		t.Error(err)
	}
	var found []digest.Digest
	var last content.Progress
	damaged, err := s.Reindex(ctx, content.ReindexOptions{Progress: func(p content.Progress) {
		if p.Blobs < last.Blobs || p.Bytes < last.Bytes || p.Blobs > p.TotalBlobs || p.Bytes > p.TotalBytes {
			t.Errorf("progress went from %+v to %+v", last, p)
		}
		last = p
	}}, func(i content.Info) error {
		if i.CreatedAt.IsZero() || i.Size != int64(map[digest.Digest]int{good: 4}[i.Digest]) {
			t.Errorf("info %+v", i)
		}
		found = append(found, i.Digest)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(found)
	if want := []digest.Digest{good, empty}; !slices.Equal(found, slices.Sorted(slices.Values(want))) {
		t.Errorf("found %q", found)
	}
	if last.Blobs != 6 || last.Damaged != 4 || last.Bytes != last.TotalBytes {
		t.Errorf("progress ended with %+v", last)
	}
	if len(damaged) != 4 {
		t.Errorf("damaged: %+v", damaged)
	}
	for _, dmg := range damaged {
		if _, err := os.Lstat(dmg.Path); err != nil || !strings.HasPrefix(dmg.Path, filepath.Join(dir, "damaged")) || dmg.Reason == "" {
			t.Errorf("%+v: %v", dmg, err)
		}
	}
	visible(t, s, 2, 0)
	if _, err := s.Info(ctx, flipped); !errdefs.IsNotFound(err) {
		t.Errorf("the damaged blob is visible: %v", err)
	}
	// It can be written again, damaged again, and is moved to another name then.
	store(t, s, dir, "flipped")
	if err := errors.Join(os.Chmod(flippedPath, 0o600), os.WriteFile(flippedPath, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	again, err := s.Reindex(ctx, content.ReindexOptions{}, func(content.Info) error { return nil })
	if err != nil || len(again) != 1 || slices.ContainsFunc(damaged, func(d content.Damage) bool { return d.Path == again[0].Path }) {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestReindex_EndsWithContextAndOnError(t *testing.T) {
	s, dir := open(t)
	store(t, s, dir, "one")
	store(t, s, dir, "two")
	ctx, cancel := context.WithCancel(context.Background())
	var n int
	_, err := s.Reindex(ctx, content.ReindexOptions{}, func(content.Info) error { n++; cancel(); return nil })
	if !errors.Is(err, context.Canceled) || n != 1 {
		t.Errorf("%d blobs, %v", n, err)
	}
	full := errors.New("full")
	if _, err := s.Reindex(context.Background(), content.ReindexOptions{}, func(content.Info) error { return full }); !errors.Is(err, full) {
		t.Error(err)
	}
	visible(t, s, 2, 0)
}

// A blob that lost bytes is replaced by the verified one.
func TestCommit_ReplacesBlobOfWrongSize(t *testing.T) {
	s, dir := open(t)
	d, path := store(t, s, dir, "whole")
	if err := os.Truncate(path, 2); err != nil {
		t.Fatal(err)
	}
	w := writer(t, s, "r", content.WriterOptions{Expected: d, Prove: true})
	write(t, w, "whole")
	if err := w.Commit(context.Background(), 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(context.Background(), d); err != nil {
		t.Error(err)
	}
}
