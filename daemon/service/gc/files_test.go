package gc

import (
	"strings"
	"testing"

	"github.com/cleatproject/cleat/proto/cleatapi"
)

func TestTally_ManyNames_BoundsTheList(t *testing.T) {
	var out tally
	name := strings.Repeat("x", 4096)
	for range 2000 {
		out.add(&cleatapi.Freed{Kind: "image", Name: name, Bytes: 3})
	}
	if n := int64(len(out.resp.Freed)); out.resp.Size() > maxFreed*11/10 || out.resp.Omitted+n != 2000 || out.resp.Bytes != 6000 || n < 100 {
		t.Errorf("%d in the list, %d left out, %d bytes", n, out.resp.Omitted, out.resp.Bytes)
	}
}
