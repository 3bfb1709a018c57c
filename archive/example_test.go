package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"

	"github.com/cleatproject/cleat/archive"
)

// Apply an archive to a directory; a hostile one is refused.
func Example() {
	root, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(root) }()
	for _, name := range []string{"etc/motd", "../../etc/motd"} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: 0}); err != nil {
			fmt.Println(err)
			return
		}
		_ = w.Close()
		_, err := archive.Apply(context.Background(), root, &b, archive.Options{})
		fmt.Println(name, err == nil)
	}
	// Output:
	// etc/motd true
	// ../../etc/motd false
}
