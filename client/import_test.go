package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// importer is a daemon that imports by take, which gets the archive's path.
func importer(t *testing.T, take func(context.Context, string) error) *fake {
	return transferring(t, func(ctx context.Context, a *asked) error {
		path, to := a.archive()
		if a.namespace != "blue" {
			t.Errorf("in the namespace %q", a.namespace)
		}
		if err := take(ctx, path); err != nil {
			return err
		}
		return a.report(saved(append(to.Names, "n")[0]))
	}, &cleatapi.Image{Name: "n"})
}

// readTo reads the archive at a path; limit, if not 0, is where it reports it as invalid.
func readTo(got *bytes.Buffer, limit int64) func(context.Context, string) error {
	return func(_ context.Context, path string) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if limit == 0 {
			_, err := got.ReadFrom(f)
			return err
		}
		if _, err := io.CopyN(got, f, limit); err != nil {
			return err
		}
		return fmt.Errorf("not an archive: %w", errdefs.ErrInvalidArgument)
	}
}

// noPipes fails the test if the client left a FIFO.
func noPipes(t *testing.T, c *client.Client) {
	t.Helper()
	entries, err := os.ReadDir(c.StdioRoot())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("%s is left", e.Name())
	}
}

func TestImport_SendsArchive(t *testing.T) {
	archive := bytes.Repeat([]byte("0123456789"), 350_000)
	path := filepath.Join(t.TempDir(), "archive.tar")
	if err := os.WriteFile(path, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(change func(*os.File) error) io.Reader {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		if err := change(f); err != nil {
			t.Fatal(err)
		}
		return f
	}
	removed := open(func(*os.File) error { return os.Remove(path) })
	if err := os.WriteFile(path, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	linked, err := os.Open(link)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = linked.Close() }()
	for _, tc := range []struct {
		name   string
		in     io.Reader
		skip   int
		direct bool
	}{
		{"memory", bytes.NewReader(archive), 0, false},
		{"a file", open(func(*os.File) error { return nil }), 0, true},
		{"a link", linked, 0, true},
		{"the rest of a file", open(func(f *os.File) error { _, err := f.Seek(7, io.SeekStart); return err }), 7, false},
		{"nothing", strings.NewReader(""), len(archive), false},
		{"a file whose name is another's", removed, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got bytes.Buffer
			var offered string
			c := importer(t, func(ctx context.Context, path string) error {
				offered = path
				return readTo(&got, 0)(ctx, path)
			}).dial()
			images, err := c.ImportImage(t.Context(), tc.in, client.ImportOptions{Name: "n"})
			if err != nil || len(images) != 1 || images[0].Name != "n" {
				t.Fatalf("got %+v, %v", images, err)
			}
			if !bytes.Equal(got.Bytes(), archive[tc.skip:]) {
				t.Error("the archive arrived changed")
			}
			if (offered == path) != tc.direct {
				t.Errorf("the daemon got the path %s", offered)
			}
			noPipes(t, c)
		})
	}
}

// A daemon with other mounts gets the bytes.
func TestImport_FileInvisibleToDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "archive.tar")
	if err := os.WriteFile(path, []byte("archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var got bytes.Buffer
	c := importer(t, func(ctx context.Context, offered string) error {
		if offered == path {
			return fmt.Errorf("open archive: %w", errdefs.ErrNotFound)
		}
		return readTo(&got, 0)(ctx, offered)
	}).dial()
	if _, err := c.ImportImage(t.Context(), f, client.ImportOptions{}); err != nil || got.String() != "archive" {
		t.Errorf("got %q, %v", &got, err)
	}
}

func TestImport_Refused_ReturnsErrorOfDaemon(t *testing.T) {
	silent, keep, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close(); _ = keep.Close() }()
	endless := func() io.Reader { return &zeros{} }
	for _, tc := range []struct {
		name string
		take func(context.Context, string) error
		in   io.Reader
	}{
		{"at the first byte", readTo(&bytes.Buffer{}, 1), endless()},
		{"after a while", readTo(&bytes.Buffer{}, 5<<20), endless()},
		{"unread", refuse, endless()},
		{"unread, and nothing comes", refuse, silent},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := importer(t, tc.take).dial()
			if _, err := c.ImportImage(t.Context(), tc.in, client.ImportOptions{}); !errdefs.IsInvalidArgument(err) {
				t.Errorf("got %v, want invalid argument", err)
			}
			noPipes(t, c)
		})
	}
}

func refuse(context.Context, string) error {
	return fmt.Errorf("no such platform: %w", errdefs.ErrInvalidArgument)
}

type zeros struct{}

func (*zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// untilEnd reads the archive to its end and reports whether the call was over by then.
func untilEnd(over chan<- bool) func(context.Context, string) error {
	return func(ctx context.Context, path string) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { _ = f.Close() })
		_, err = io.Copy(io.Discard, f)
		over <- err != nil
		if stop() {
			_ = f.Close()
		}
		return err
	}
}

// A partial archive must not be mistaken for a complete one.
func TestImport_UnreadableArchive(t *testing.T) {
	over := make(chan bool, 1)
	broken := errors.New("disk on fire")
	c := importer(t, untilEnd(over)).dial()
	_, err := c.ImportImage(t.Context(), io.MultiReader(strings.NewReader("x"), &failing{broken}), client.ImportOptions{})
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	if !<-over {
		t.Error("the daemon took the failure for the end of the archive")
	}
	noPipes(t, c)
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

func TestImport_Cancelled(t *testing.T) {
	silent, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close(); _ = feed.Close() }()
	if _, err := feed.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string]io.Reader{"waiting to write": &zeros{}, "waiting to read": silent} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			c := importer(t, func(ctx context.Context, path string) error {
				f, err := os.Open(path)
				if err != nil {
					return err
				}
				defer func() { _ = f.Close() }()
				if _, err := f.Read(make([]byte, 1)); err != nil {
					return err
				}
				cancel()
				<-ctx.Done()
				return ctx.Err()
			}).dial()
			if _, err := c.ImportImage(ctx, in, client.ImportOptions{}); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want canceled", err)
			}
			noPipes(t, c)
		})
	}
}

func TestImport_DaemonDies(t *testing.T) {
	entered := make(chan struct{})
	f := importer(t, func(ctx context.Context, path string) error {
		p, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = p.Close() }()
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	})
	c := f.dial()
	go func() {
		<-entered
		f.stop()
	}()
	_, err := c.ImportImage(t.Context(), &zeros{}, client.ImportOptions{})
	if !errdefs.IsUnavailable(err) {
		t.Errorf("got %v, want unavailable", err)
	}
	noPipes(t, c)
}

// However long the daemon blocks, the archive waits.
func TestImport_SlowDaemon(t *testing.T) {
	var got bytes.Buffer
	c := importer(t, func(ctx context.Context, path string) error {
		longer := time.NewTimer(1500 * time.Millisecond) // than a stream of ttrpc tolerates
		<-longer.C
		return readTo(&got, 0)(ctx, path)
	}).dial()
	archive := bytes.Repeat([]byte("0123456789"), 5<<20)
	images, err := c.ImportImage(t.Context(), bytes.NewReader(archive), client.ImportOptions{})
	if err != nil || len(images) != 1 || !bytes.Equal(got.Bytes(), archive) {
		t.Errorf("got %+v, %v, and %d bytes", images, err, got.Len())
	}
}
