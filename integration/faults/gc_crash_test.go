package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// TestCollect_ImagesOfEarlierVersion_AreKept deletes the labels that earlier versions did not set.
func TestCollect_ImagesOfEarlierVersion_AreKept(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Layered("img", "text")
	d.GC() // the first collection after the start has added such labels
	ctx, conn := fixture.GRPC(d)
	content := contentapi.NewContentClient(conn)
	stream, err := content.List(ctx, &contentapi.ListContentRequest{})
	harness.Must(t, err)
	list, err := stream.Recv()
	harness.Must(t, err)
	strip := func(key string) {
		t.Helper()
		for _, info := range list.GetInfo() {
			if key == "" {
				info.Labels = nil
			}
			delete(info.Labels, key)
			_, err := content.Update(ctx, &contentapi.UpdateRequest{Info: info, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels"}}})
			harness.Must(t, err)
		}
		d.Restart()
		if f := d.GC(); len(f.Freed) != 0 {
			t.Errorf("collected %+v", f)
		}
		harness.Must(t, d.Holds(4, 2))
	}
	strip("containerd.io/gc.ref.snapshot.overlayfs")
	strip("")
	if out := d.Cleat("run", "--rm", "img", "cat", "/data/text"); out != "text" {
		t.Errorf("the image prints %q", out)
	}
	d.Cleat("image", "rm", "img")
	harness.Must(t, d.Holds(0, 0))
}

func TestCollect_RemainsOfCrashes(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	d.Cleat("run", "--rm", "busybox", "true")
	harness.Must(t, d.Holds(3, 1))
	d.Kill9()
	orphan := digest.FromString("orphan")
	harness.Must(t, os.WriteFile(filepath.Join(d.Root, "content", "blobs", "sha256", orphan.Encoded()), []byte("orphan"), 0o444))
	harness.Must(t, os.MkdirAll(filepath.Join(d.Root, "snapshots", "overlayfs", "2", "fs"), 0o700)) // the files of the container
	ingest := filepath.Join(d.Root, "content", "ingest", digest.FromString("default/old").Encoded())
	harness.Must(t, os.Mkdir(ingest, 0o700))
	old := time.Now().Add(-25 * time.Hour)
	meta, err := json.Marshal(map[string]any{"startedAt": old})
	harness.Must(t, err)
	for name, data := range map[string][]byte{"ref": []byte("default/old"), "data": []byte("x"), "meta": meta} {
		harness.Must(t, os.WriteFile(filepath.Join(ingest, name), data, 0o600))
		harness.Must(t, os.Chtimes(filepath.Join(ingest, name), old, old))
	}
	d.Begin()
	d.Eventually("the remains are collected", func() error {
		if _, err := os.Stat(ingest); !errors.Is(err, fs.ErrNotExist) {
			return errors.New("the ingest is left")
		}
		return d.Holds(3, 1)
	})
	d.Cleat("run", "--rm", "busybox", "true")
}

// TestCollect_ConcurrentWork_IsUnaffected collects without a pause while images are imported, run and removed; all of
// it must succeed.
func TestCollect_ConcurrentWork_IsUnaffected(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ctx, stop := context.WithCancel(t.Context())
	collected := make(chan error, 1)
	c := fixture.Client(d)
	go func() {
		for ctx.Err() == nil {
			if _, err := c.CollectGarbage(context.Background()); err != nil {
				collected <- err
				return
			}
		}
		collected <- nil
	}()
	done := make(chan error, 3)
	archive := harness.BusyboxArchive(t)
	go func() { // ctr works with leases
		done <- func() error {
			for range harness.Size(12, 200) {
				for _, args := range [][]string{
					{"images", "import", "--no-unpack", "--index-name", "docker.io/library/ctr:latest", archive},
					{"images", "export", "/dev/null", "docker.io/library/ctr:latest"},
					{"images", "rm", "docker.io/library/ctr:latest"},
				} {
					if out, err := exec.Command("ctr", append([]string{"--address", d.Address}, args...)...).CombinedOutput(); err != nil {
						return fmt.Errorf("ctr %q: %w: %s", args, err, out)
					}
				}
			}
			return nil
		}()
	}()
	for w := range 2 {
		go func() {
			done <- func() error {
				for range harness.Size(6, 100) {
					name := fmt.Sprintf("img%d", w)
					for _, args := range [][]string{
						{"image", "import", "--name", name, archive},
						{"run", "--rm", name, "true"},
						{"image", "rm", name},
					} {
						if out, err := d.Command(args...).CombinedOutput(); err != nil {
							return fmt.Errorf("cleat %q: %w: %s", args, err, out)
						}
					}
				}
				return nil
			}()
		}()
	}
	for range 3 {
		if err := <-done; err != nil {
			t.Errorf("%v\n%s", err, d.Log())
		}
	}
	stop()
	harness.Must(t, <-collected)
	d.GC()
	harness.Must(t, d.Holds(0, 0))
}

// TestDaemonKilled_DuringCollection kills the daemon at steps of a collection, and after it.
func TestDaemonKilled_DuringCollection(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Layered("kept", "kept")
	d.Sweep(harness.Size(8, 60), []string{d.Root}, func(i int, at *harness.Interruption) (collected bool) {
		d.Layered("gone", fmt.Sprint(i))
		cmd := d.Command("image", "rm", "gone")
		daemon := d.Cmd
		at.Run(cmd, harness.Signal(daemon, syscall.SIGKILL))
		d.Kill9()
		_ = cmd.Wait() // the command may have lost its daemon
		collected = d.Holds(4, 2) == nil
		d.Begin()
		if _, _, code := d.Try("image", "inspect", "gone"); code == 0 {
			d.Cleat("image", "rm", "gone") // killed too early
		}
		d.Eventually("the garbage is removed", func() error { return d.Holds(4, 2) })
		if out := d.Cleat("run", "--rm", "kept", "cat", "/data/text"); out != "kept" {
			t.Errorf("the kept image prints %q", out)
		}
		return collected
	})
}
