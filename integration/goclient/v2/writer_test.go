package goclient

import (
	"bytes"
	"context"
	_ "crypto/sha512"
	"io"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// watched is a content writer whose fields are all checked after each action.
type watched struct {
	content.Writer
	t       *testing.T
	store   content.Store
	ref     string
	total   int64
	written []byte
	before  content.Status
	// asked is true after the writer was used: the client receives the digest with the second response.
	asked bool
}

// watch opens a writer. written is the expected content of a resumed ingest.
func watch(ctx context.Context, t *testing.T, store content.Store, ref string, total int64, written []byte) *watched {
	t.Helper()
	opts := []content.WriterOpt{content.WithRef(ref)}
	if total > 0 {
		opts = append(opts, content.WithDescriptor(ocispec.Descriptor{Size: total}))
	}
	w, err := content.OpenWriter(ctx, store, opts...) // waits until the previous writer has left
	if err != nil {
		t.Fatal(err)
	}
	return &watched{Writer: w, t: t, store: store, ref: ref, total: total, written: bytes.Clone(written)}
}

// check compares the state of the ingest in the writer and in the store after an action.
func (w *watched) check(ctx context.Context, action string, writes bool) content.Status {
	w.t.Helper()
	want := digest.FromBytes(w.written)
	if got := w.Digest(); got != want && (w.asked || got != "") {
		w.t.Errorf("%s: digest %s, want %s", action, got, want)
	}
	w.asked = true
	st, err := w.Status()
	if err != nil {
		w.t.Fatalf("%s: %v", action, err)
	}
	if st.Ref != w.ref || st.Offset != int64(len(w.written)) || st.Total != w.total || st.StartedAt.IsZero() || st.UpdatedAt.Before(st.StartedAt) {
		w.t.Errorf("%s: status %+v, want %s at %d of %d", action, st, w.ref, len(w.written), w.total)
	}
	if !w.before.StartedAt.IsZero() && !st.StartedAt.Equal(w.before.StartedAt) {
		w.t.Errorf("%s: started at %v, before that %v", action, st.StartedAt, w.before.StartedAt)
	}
	if !writes && !w.before.UpdatedAt.IsZero() && !st.UpdatedAt.Equal(w.before.UpdatedAt) || st.UpdatedAt.Before(w.before.UpdatedAt) {
		w.t.Errorf("%s: updated at %v, before that %v", action, st.UpdatedAt, w.before.UpdatedAt)
	}
	w.before = st
	seen, err := w.store.Status(ctx, w.ref)
	if err != nil || seen.Ref != w.ref || seen.Offset != st.Offset || seen.Total != st.Total || !seen.StartedAt.Equal(st.StartedAt) {
		w.t.Errorf("%s: the store's status %+v, %v, the writer's %+v", action, seen, err, st)
	}
	listed, err := w.store.ListStatuses(ctx, "ref=="+w.ref)
	if err != nil || len(listed) != 1 || listed[0].Offset != st.Offset || listed[0].Total != st.Total {
		w.t.Errorf("%s: listed %+v, %v", action, listed, err)
	}
	// The status does not change the writer.
	if got := w.Digest(); got != want {
		w.t.Errorf("%s: digest after the status %s, want %s", action, got, want)
	}
	return st
}

func (w *watched) write(ctx context.Context, data []byte) {
	w.t.Helper()
	n, err := w.Write(data)
	if err != nil || n != len(data) {
		w.t.Fatalf("write: %d, %v", n, err)
	}
	w.written = append(w.written, data...)
	w.asked = true
	w.check(ctx, "write", len(data) > 0)
}

// TestContentWriter checks each field of a writer after each of its actions.
func TestContentWriter(t *testing.T) {
	f := start(t)
	ctx, done, err := f.client.WithLease(f.ctx)
	f.must(err)
	defer func() { f.must(done(f.ctx)) }()
	testContentWriter(ctx, t, f.client.ContentStore())
}

func testContentWriter(ctx context.Context, t *testing.T, store content.Store) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16+3)
	for _, total := range []int64{0, int64(len(body))} {
		ref := map[bool]string{true: "known", false: "unknown"}[total > 0]
		w := watch(ctx, t, store, ref, total, nil)
		w.check(ctx, "open", true)
		w.write(ctx, body[:100])
		w.write(ctx, nil)
		w.write(ctx, body[100:300_000])
		// The ingest is restarted; containerd's client reports that with the next write.
		must(w.Truncate(0))
		w.written = nil
		w.write(ctx, body[:200_000])
		started := w.before.StartedAt
		must(w.Close())
		seen, err := store.Status(ctx, ref)
		must(err)
		// A resumed ingest is unchanged.
		w = watch(ctx, t, store, ref, total, body[:200_000])
		if st := w.check(ctx, "open again", false); !st.StartedAt.Equal(started) || !st.UpdatedAt.Equal(seen.UpdatedAt) {
			t.Errorf("opened again: %+v, before that %+v", st, seen)
		}
		w.write(ctx, body[200_000:200_001])
		must(w.Close())
		w = watch(ctx, t, store, ref, total, body[:200_001])
		must(w.Truncate(0))
		w.written = nil
		w.write(ctx, body)
		want := digest.FromBytes(body)
		err = w.Commit(ctx, int64(len(body)), want, content.WithLabels(map[string]string{"containerd.io/gc.root": "x"}))
		if total == 0 {
			must(err)
		} else if !errdefs.IsAlreadyExists(err) { // existed since the first time
			t.Errorf("commit of an existing blob: %v", err)
		}
		if w.Digest() != want {
			t.Errorf("digest after the commit %s, want %s", w.Digest(), want)
		}
		must(w.Close())
		if _, err := store.Status(ctx, ref); !errdefs.IsNotFound(err) {
			t.Errorf("status of a committed ingest: %v", err)
		}
		info, err := store.Info(ctx, want)
		if err != nil || info.Size != int64(len(body)) || info.Digest != want || info.CreatedAt.IsZero() || info.UpdatedAt.Before(info.CreatedAt) {
			t.Errorf("info %+v, %v", info, err)
		}
	}
	t.Run("refused commits", func(t *testing.T) {
		w := watch(ctx, t, store, "refused", 0, nil)
		w.write(ctx, []byte("refused"))
		if err := w.Commit(ctx, 99, ""); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("commit of another size: %v", err)
		}
		must(w.Close())
		w = watch(ctx, t, store, "refused", 0, []byte("refused"))
		w.check(ctx, "open after a refused commit", false)
		if err := w.Commit(ctx, 7, digest.FromString("another")); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("commit of another digest: %v", err)
		}
		must(w.Close())
		must(store.Abort(ctx, "refused"))
	})
	t.Run("nothing", func(t *testing.T) {
		w := watch(ctx, t, store, "nothing", 0, nil)
		w.check(ctx, "open", true)
		w.write(ctx, nil)
		must(w.Commit(ctx, 0, "", content.WithLabels(map[string]string{"containerd.io/gc.root": "x"})))
		if w.Digest() != digest.FromString("") {
			t.Errorf("digest of an empty blob %s", w.Digest())
		}
		must(w.Close())
	})
	t.Run("copy", func(t *testing.T) {
		// As in conversions: the digest is the writer's, whether or not the blob existed.
		for range 2 {
			w, err := store.Writer(ctx, content.WithRef("copy"))
			must(err)
			_, err = io.Copy(w, strings.NewReader("copied by a client"))
			must(err)
			err = w.Commit(ctx, 0, "", content.WithLabels(map[string]string{"containerd.io/gc.root": "x"}))
			if err != nil && !errdefs.IsAlreadyExists(err) {
				t.Fatal(err)
			}
			if w.Digest() != digest.FromString("copied by a client") {
				t.Errorf("digest %s after a commit that answers %v", w.Digest(), err)
			}
			must(w.Close())
		}
	})
}
