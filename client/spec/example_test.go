package spec_test

import (
	"fmt"

	"github.com/cleatproject/cleat/client/spec"
)

func ExampleGenerate() {
	image, err := spec.ParseImage([]byte(`{"config": {"Entrypoint": ["/bin/busybox"], "Cmd": ["sh"], "WorkingDir": "/srv"}}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err := spec.Generate(image, spec.Options{Args: []string{"ls", "-l"}, Limits: spec.Limits{Memory: 64 << 20}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.Process.Args, "in", s.Process.Cwd)
	fmt.Println(len(s.Process.Capabilities.Bounding), "capabilities,", *s.Linux.Resources.Memory.Limit, "bytes")
	// Output:
	// [/bin/busybox ls -l] in /srv
	// 14 capabilities, 67108864 bytes
}
