package image_test

import (
	"fmt"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/image"
)

func TestNormalizeName(t *testing.T) {
	for name, want := range map[string]string{
		"busybox": "docker.io/library/busybox:latest", "a/b:1": "docker.io/a/b:1", "x.io/a": "x.io/a:latest",
		"": "", "UPPER": "", "a b": "", "../x": "",
	} {
		got, err := image.NormalizeName(name)
		if got != want || want == "" && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
}

func ExampleNormalizeName() {
	name, err := image.NormalizeName("busybox")
	fmt.Println(name, err)
	// Output: docker.io/library/busybox:latest <nil>
}
