package reaper_test

import (
	"context"
	"fmt"
	"os/exec"

	"github.com/cleatproject/cleat/reaper"
)

func Example() {
	r := reaper.New()
	defer func() { _ = r.Close() }()

	child, err := r.Spawn(exec.Command("/bin/sh", "-c", "exit 42"))
	if err != nil {
		fmt.Println(err)
		return
	}
	exit, err := child.Wait(context.Background())
	fmt.Println(exit.Status, err)
	// Output: 42 <nil>
}
