package goclient

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/image-spec/identity"
)

// TestSnapshotDetails covers what clients of snapshots depend on beyond the files.
func TestSnapshotDetails(t *testing.T) {
	f := start(t)
	ctx, done, err := f.client.WithLease(f.ctx)
	f.must(err)
	defer func() { f.must(done(f.ctx)) }()
	sn := f.client.SnapshotService("overlayfs")
	ids, err := f.image.RootFS(ctx)
	f.must(err)
	chain := identity.ChainID(ids).String()

	events, errs := f.subscribe(`topic~="/snapshot/"`)
	_, err = sn.View(ctx, "view", chain)
	f.must(err)
	_, err = sn.Prepare(ctx, "active", chain)
	f.must(err)
	active, err := sn.Stat(ctx, "active")
	f.must(err)
	f.must(sn.Commit(ctx, "committed", "active", snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "x"})))
	f.must(sn.Remove(ctx, "view"))
	var topics []string
	for len(topics) < 3 {
		select {
		case e := <-events:
			topics = append(topics, e.Topic)
		case err := <-errs:
			f.Fatal(err)
		}
	}
	if got := strings.Join(topics, " "); got != "/snapshot/prepare /snapshot/commit /snapshot/remove" {
		t.Errorf("events of a view, an active and a committed snapshot: %s", got)
	}
	info, err := sn.Stat(ctx, "committed")
	f.must(err)
	if info.Kind != snapshots.KindCommitted || !info.Created.Equal(info.Updated) || !info.Created.After(active.Created) {
		t.Errorf("committed %+v, made of %+v", info, active)
	}
	info, err = sn.Update(ctx, snapshots.Info{Name: "committed", Labels: map[string]string{"a": "b"}}, "labels.a")
	f.must(err)
	if !info.Updated.After(info.Created) {
		t.Errorf("updated %+v", info)
	}
}

// TestPrepare_ExistingSnapshot prepares a snapshot that is to become an existing one.
func TestPrepare_ExistingSnapshot(t *testing.T) {
	f := start(t)
	ctx, done, err := f.client.WithLease(f.ctx)
	f.must(err)
	sn := f.client.SnapshotService("overlayfs")
	ids, err := f.image.RootFS(ctx)
	f.must(err)
	below, chain := identity.ChainID(ids[:1]).String(), identity.ChainID(ids).String()
	ref := func(target string) snapshots.Opt {
		return snapshots.WithLabels(map[string]string{"containerd.io/snapshot.ref": target})
	}
	for target, parent := range map[string]string{below: "", chain: below} {
		if _, err := sn.Prepare(ctx, "extract-1 "+target, parent, ref(target)); !errdefs.IsAlreadyExists(err) {
			t.Errorf("prepare of %s: %v", target, err)
		}
		if _, err := sn.Stat(ctx, "extract-1 "+target); !errdefs.IsNotFound(err) {
			t.Errorf("the refused snapshot: %v", err)
		}
	}
	// The lease of the caller holds the returned snapshots.
	lease, ok := leases.FromContext(ctx)
	if !ok {
		t.Fatal("no lease")
	}
	resources, err := f.client.LeasesService().ListResources(ctx, leases.Lease{ID: lease})
	f.must(err)
	held := 0
	for _, r := range resources {
		if r.Type == "snapshots/overlayfs" && (r.ID == below || r.ID == chain) {
			held++
		}
	}
	if held != 2 {
		t.Errorf("the lease holds %+v", resources)
	}
	// A missing snapshot is created, and may then be committed under that name.
	if _, err := sn.Prepare(ctx, "extract-2 new", chain, ref("new")); err != nil {
		t.Error(err)
	}
	f.must(sn.Commit(ctx, "new", "extract-2 new"))
	if _, err := sn.Prepare(ctx, "extract-3 new", chain, ref("new")); !errdefs.IsAlreadyExists(err) {
		t.Errorf("prepare of a committed name: %v", err)
	}
	f.must(done(f.ctx))
}

// TestUserNamespace_SeveralRanges maps an image's files to a user namespace with several ranges of ids.
func TestUserNamespace_SeveralRanges(t *testing.T) {
	f := start(t)
	sn := f.client.SnapshotService("overlayfs")
	ids, err := f.image.RootFS(f.ctx)
	f.must(err)
	mounts, err := sn.Prepare(f.ctx, "mapped", identity.ChainID(ids).String(), snapshots.WithLabels(map[string]string{
		"containerd.io/snapshot/uidmapping": "0:100000:1000,1000:300000:64536",
		"containerd.io/snapshot/gidmapping": "0:200000:65536",
		"containerd.io/gc.root":             "x",
	}))
	f.must(err)
	if len(mounts) == 0 {
		t.Error("no mounts")
	}
	if _, err := sn.Prepare(f.ctx, "bad", "", snapshots.WithLabels(map[string]string{
		"containerd.io/snapshot/uidmapping": "0:100000:1000,999:300000:64536", "containerd.io/snapshot/gidmapping": "0:200000:65536",
	})); !errdefs.IsInvalidArgument(err) {
		t.Errorf("overlapping ranges: %v", err)
	}
	f.must(sn.Remove(f.ctx, "mapped"))
}

// TestTask_Mounts finds the mounts of a task by the id of its container, until the task is deleted.
func TestTask_Mounts(t *testing.T) {
	f := start(t)
	manager := f.client.MountManager()
	snapshot, err := f.client.SnapshotService("overlayfs").View(f.ctx, "lower", chainOf(f), snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "x"}))
	f.must(err)
	lower := filepath.Join(t.TempDir(), "lower")
	f.must(mount.WithTempMount(f.ctx, snapshot, func(root string) error { return copyTree(root, lower) }))
	disk := filepath.Join(t.TempDir(), "disk.img")
	rootfs := []mount.Mount{
		{Type: "mkfs/loop", Source: disk, Options: []string{"X-containerd.mkfs.size=32MiB", "X-containerd.mkfs.fs=ext4"}},
		{Type: "format/ext4", Source: "{{ source 0 }}"},
		{Type: "format/mkdir/overlay", Source: "overlay", Options: []string{
			"X-containerd.mkdir.path={{ mount 1 }}/up:0755", "X-containerd.mkdir.path={{ mount 1 }}/work:0755",
			"lowerdir=" + lower, "upperdir={{ mount 1 }}/up", "workdir={{ mount 1 }}/work",
		}},
	}
	c, err := f.client.NewContainer(f.ctx, "helped", containerd.WithNewSpec(oci.WithRootFSPath("rootfs"), oci.WithProcessArgs("/bin/sleep", "1000")))
	f.must(err)
	for range 2 {
		task, err := c.NewTask(f.ctx, cio.NullIO, containerd.WithRootFS(rootfs))
		f.must(err)
		exit, err := task.Wait(f.ctx)
		f.must(err)
		for _, step := range []func() error{
			func() error { return nil },
			func() error { return task.Start(f.ctx) },
			func() error { return task.Kill(f.ctx, 9) },
			func() error { <-exit; return nil },
		} {
			f.must(step())
			info, err := manager.Info(f.ctx, "helped")
			f.must(err)
			if len(info.Active) != 2 || len(info.System) != 1 {
				t.Errorf("activation %+v", info)
			}
		}
		_, err = task.Delete(f.ctx)
		f.must(err)
		if _, err := manager.Info(f.ctx, "helped"); !errdefs.IsNotFound(err) {
			t.Errorf("after the task was deleted: %v", err)
		}
	}
	f.must(c.Delete(f.ctx))
}

// chainOf returns the name of the test image's topmost snapshot.
func chainOf(f *fixture) string {
	ids, err := f.image.RootFS(f.ctx)
	f.must(err)
	return identity.ChainID(ids).String()
}

// copyTree copies a directory, including links.
func copyTree(from, to string) error {
	return exec.Command("cp", "-a", from, to).Run()
}
