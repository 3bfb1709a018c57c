package cli

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

// imageTour uses ctr with images that are unpacked, mounted, run, compared, converted, pushed to and pulled from a
// registry.
func imageTour() []tourStep {
	const (
		progress = "what ctr's progress shows depends on the moment"
		order    = "ctr prints labels and blobs in a random order"
		archive  = "the bytes of a diff are each daemon's own"
		criu     = "there is no CRIU: cleat says failed precondition, the peer unknown"
	)
	return []tourStep{
		{args: "images import --index-name {image} {archive}", differs: progress},
		{args: "images ls"},
		{args: "images check"},
		{args: "snapshots ls"},
		{args: "snapshots tree"},
		{args: "images import --index-name tour.example/arm:1 --platform linux/arm64 {archive}", differs: progress},
		{args: "images import --index-name tour.example/all:1 --all-platforms {archive}", differs: progress},
		{args: "images ls labels.x==y"},
		{args: "images mount {image} {mnt}"},
		{args: "images mount {image} {mnt}"},
		{args: "images unmount {mnt}"},
		{args: "images unmount --rm {mnt}"},
		{args: "images mount --rw {image} {mnt}"},
		{args: "images unmount --rm {mnt}"},
		{args: "images mount --platform linux/arm64 {image} {mnt}"},
		{args: "snapshots ls"},

		{args: "run --rm --fifo-dir {fifos} {image} i1 /bin/echo of an image", until: "of an image\n"},
		{args: "run --rm --fifo-dir {fifos} {image} i2 /bin/env", until: "FROM_IMAGE=yes\n"},
		{args: "run --rm --fifo-dir {fifos} --read-only {image} i3 /bin/touch /x", says: "Read-only"},
		{args: "run --rm --fifo-dir {fifos} --net-host {image} i4 /bin/hostname -f", differs: "the host's name is as it is"},
		{args: "run --rm --fifo-dir {fifos} --label a=b --annotation c=d {image} i5 /bin/true"},
		{args: "run --rm --fifo-dir {fifos} --snapshotter native {image} i6 /bin/echo native", until: "native\n"},
		{args: "run --rm --fifo-dir {fifos} --snapshotter nothing {image} i7 /bin/true"},
		{args: "run -d --fifo-dir {fifos} --null-io {image} i10 /bin/sleep 1000"},
		{args: "snapshots ls"},
		{args: "tasks exec --fifo-dir {fifos} --exec-id e1 i10 /bin/touch /added"},
		{args: "snapshots diff --keep --label tour=diff --media-type application/vnd.oci.image.layer.v1.tar i10", differs: archive},
		{args: "snapshots diff --media-type application/nonsense i10"},
		{args: "snapshots diff nothing"},
		{args: "content ls -q labels.tour==diff", differs: archive},
		{args: "tasks checkpoint i10", class: criu},
		{args: "containers checkpoint --rw --image i10 tour.example/checkpoint:1", differs: archive},
		{args: "containers checkpoint --task i10 tour.example/checkpoint:2", class: criu},
		{args: "images ls -q"},
		{args: "containers restore --rw i11 tour.example/checkpoint:1"},
		{args: "containers restore i12 nothing"},
		{args: "tasks kill --signal SIGKILL i10"},
		{args: "tasks ls", until: "STOPPED"},
		{args: "tasks rm i10"},
		{args: "containers rm i10"},
		{args: "containers ls"},
		{args: "tasks rm --force i11"},
		{args: "containers rm i11"},
		{args: "images rm --sync tour.example/checkpoint:1"},
		{args: "snapshots ls"},

		{args: "images tag {image} {ref}"},
		{args: "images push --plain-http {ref}", differs: progress},
		{args: "images push --plain-http {ref}", differs: progress},
		{args: "images push --plain-http {host}/nothing:1", differs: progress},
		{args: "images rm --sync {ref} {image}"},
		{args: "content ls -q", differs: archive},
		{args: "snapshots ls"},
		{args: "images pull --plain-http {ref}", differs: progress},
		{args: "images pull --plain-http --label a=b --snapshotter native {ref}", differs: progress},
		{args: "images pull --plain-http {host}/nothing:1", differs: progress},
		{args: "images pull --plain-http --platform linux/arm64 {ref}", differs: progress},
		{args: "images ls"},
		{args: "images check", differs: order},
		{args: "content ls -q", differs: archive},
		{args: "run --rm --fifo-dir {fifos} {ref} i13 /bin/echo pulled", until: "pulled\n"},
		{args: "snapshots unpack {manifest}"},
		{args: "snapshots unpack {wrong}"},
		{args: "images convert --oci --uncompress {ref} tour.example/converted:1"},
		{args: "images convert {ref} tour.example/same:1"},
		{args: "images convert nothing tour.example/none:1"},
		{args: "images ls", differs: "the peer gives the unchanged index to one of them"},
		{args: "content fetch --plain-http {ref}", differs: progress},
		{args: "content fetch-object --plain-http {ref} {manifest}"},
		{args: "content push-object --plain-http {ref} {manifest} application/vnd.oci.image.manifest.v1+json"},
		{args: "content prune references", differs: order},
		{args: "images rm --sync {ref} tour.example/same:1 tour.example/converted:1", differs: order},
		{args: "images ls"},
		{args: "snapshots ls"},
		{args: "leases ls -q"},
	}
}

// onlyManifest returns the digest of the one manifest in an archive by ociArchive.
func onlyManifest(t *testing.T, archive string) string {
	t.Helper()
	var index struct {
		Manifests []struct{ Digest string }
	}
	data, err := exec.Command("tar", "-xOf", archive, "index.json").Output()
	harness.Must(t, err)
	harness.Must(t, json.Unmarshal(data, &index))
	return index.Manifests[0].Digest
}

func TestCtr_Images_OnCleatdAndContainerd_ShowsTheSame(t *testing.T) {
	t.Parallel()
	archive := harness.BusyboxArchive(t)
	registry := harness.StartRegistry(t, harness.RegistryOptions{})
	d := harness.StartUncollected(t)
	peer, ours := newTraveller(t, "peer", harness.StartContainerd(t).Address, archive), newTraveller(t, "ours", d.Address, archive)
	for _, tr := range []*traveller{peer, ours} {
		tr.knows["host"], tr.knows["manifest"] = registry.Host, onlyManifest(t, archive)
		tr.knows["ref"] = registry.Host + "/" + tr.knows["peer"] + "/busybox:1"
		tr.knows["mnt"] = filepath.Join(tr.knows["dir"], "mnt")
		harness.Must(t, os.Mkdir(tr.knows["mnt"], 0o700))
	}
	compareTours(t, imageTour(), ours, peer)
}
