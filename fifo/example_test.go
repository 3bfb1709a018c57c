package fifo_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/cleatproject/cleat/fifo"
)

// A program writes into a FIFO; its output is read concurrently or later.
func Example() {
	dir, err := os.MkdirTemp("", "fifo")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "stdout")
	if err := fifo.Create(path, 0o600); err != nil {
		fmt.Println(err)
		return
	}
	hold, child, err := fifo.Sink(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = hold.Close() }()

	cmd := exec.Command("/bin/echo", "hello")
	cmd.Stdout = child
	err = cmd.Run()
	_ = child.Close()
	fmt.Println("echo:", err)

	r, err := fifo.ReadEnd(path) // the writer has exited: the output is complete
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = r.Close() }()
	text, err := io.ReadAll(r)
	fmt.Printf("%q %v\n", text, err)
	// Output:
	// echo: <nil>
	// "hello\n" <nil>
}
