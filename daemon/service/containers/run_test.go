package containers

import (
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/snapshot"
)

func TestRun_InvalidStorageSize_IsRefused(t *testing.T) {
	for _, req := range []RunRequest{
		{ID: "a", Image: "a", StorageSize: -1}, {ID: "a", Image: "a", StorageSize: snapshot.MinLimit - 1}, {ID: "a", Rootfs: "/a", StorageSize: 1 << 30},
	} {
		if err := req.check(); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", req, err)
		}
	}
	if err := (&RunRequest{ID: "a", Image: "a", StorageSize: snapshot.MinLimit}).check(); err != nil {
		t.Error(err)
	}
}
