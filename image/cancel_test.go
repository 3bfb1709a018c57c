package image_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/imagetest"
	"github.com/cleatproject/cleat/image/layout"
	"github.com/cleatproject/cleat/mount"
)

// cancelAfter cancels when n bytes of it were read.
type cancelAfter struct {
	io.Reader
	n      int
	cancel func()
}

func (c *cancelAfter) Read(p []byte) (int, error) {
	if c.n <= 0 {
		c.cancel()
	}
	if len(p) > 512 {
		p = p[:512]
	}
	n, err := c.Reader.Read(p)
	c.n -= n
	return n, err
}

func TestImport_Cancelled_LeavesNoIngest(t *testing.T) {
	f := imagetest.Files{}
	f.SetIndex(t, f.AddImage(t, "amd64", imagetest.Files{"a": strings.Repeat("0123456789", 10_000)}.Tar(t)))
	data := f.Tar(t)
	for at := 0; at < len(data)-2048; at += 997 {
		c, s := imagetest.NewContent(t)
		ctx, cancel := context.WithCancel(context.Background())
		_, err := layout.Import(ctx, c, &cancelAfter{Reader: bytes.NewReader(data), n: at, cancel: cancel}, layout.ImportOptions{})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled after %d bytes: %v", at, err)
		}
		ingests, err := s.ListStatuses(context.Background(), "")
		if err != nil || len(ingests) != 0 {
			t.Errorf("cancelled after %d bytes: left behind %v, %v", at, ingests, err)
		}
	}
}

// cutSnapshots cancels once a snapshot is prepared.
type cutSnapshots struct {
	*snapshots
	cancel func()
}

func (c *cutSnapshots) Prepare(ctx context.Context, key, parent string) ([]mount.Mount, error) {
	defer c.cancel()
	return c.snapshots.Prepare(ctx, key, parent)
}

func TestUnpack_Cancelled_LeavesNothing(t *testing.T) {
	f := imagetest.Files{}
	f.SetIndex(t, f.AddImage(t, "amd64", imagetest.Files{"a": strings.Repeat("x", 1<<20), "b": "y"}.Tar(t)))
	got, c, err := imagetest.ImportBytes(t, f.Tar(t), layout.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := newSnapshots(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// The snapshot is prepared, and then the context is cancelled.
	cut := &cutSnapshots{snapshots: s, cancel: cancel}
	if _, err := image.Unpack(ctx, c, cut, got[0].Target, image.UnpackOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if n := s.count(t); n != 0 {
		t.Errorf("%d snapshots left behind", n)
	}
}
