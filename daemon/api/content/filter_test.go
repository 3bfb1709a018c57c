package content

import (
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/content"
)

// Whatever a client sends for a filter is one or an invalid argument.
func FuzzStatusFilter(f *testing.F) {
	for _, expr := range []string{"", "^a", "ref==a", "ref~=^a", `ref~="a,b"`, "ref!=a,ref==b", "ref==a,other", "(", "ref~=(", "ref==\x00"} {
		f.Add(expr, "a")
	}
	f.Fuzz(func(t *testing.T, expr, ref string) {
		match, err := statusFilter([]string{expr})
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%q: %v", expr, err)
			}
			return
		}
		first := match(content.Status{Ref: ref})
		if expr == "" && !first || match(content.Status{Ref: ref}) != first {
			t.Errorf("%q on %q: %v", expr, ref, first)
		}
	})
}
