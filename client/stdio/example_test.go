package stdio_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"

	"github.com/cleatproject/cleat/client/stdio"
)

// A process writes to a FIFO that it opens itself, as a container does.
func Example() {
	root, err := os.MkdirTemp("", "stdio")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(root) }()

	s, err := stdio.New(root, stdio.Want{Stdout: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	process := exec.Command("sh", "-c", "echo all fast > "+s.Paths.Stdout)
	if err := process.Start(); err != nil {
		fmt.Println(err)
		return
	}
	s.Copy(stdio.Streams{Out: os.Stdout})
	if err := process.Wait(); err != nil {
		fmt.Println(err)
	}
	if err := s.Started(); err != nil {
		fmt.Println(err)
	}
	if err := s.Finish(context.Background()); err != nil {
		fmt.Println(err)
	}
	if err := s.Close(); err != nil {
		fmt.Println(err)
	}
	// Output: all fast
}
