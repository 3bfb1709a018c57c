package peers

import (
	"bytes"
	"fmt"
	"time"

	"github.com/cleatproject/cleat/integration/harness"
)

// dockerState is a part of the response to inspect.
type dockerState struct {
	RestartCount int
	State        struct {
		Status        string
		ExitCode, Pid int
		Paused        bool
		FinishedAt    time.Time
	}
}

func inspect(d *harness.Dockerd, name string) (s dockerState) {
	d.T.Helper()
	d.Decode("GET", "/containers/"+name+"/json", nil, &s)
	return s
}

// is waits until a container has a status.
func is(d *harness.Dockerd, name, status string) (s dockerState) {
	d.T.Helper()
	harness.Eventually(d.T, name+" is "+status, func() error {
		if s = inspect(d, name); s.State.Status != status {
			return fmt.Errorf("%s is %+v", name, s)
		}
		return nil
	}, d.Log)
	return s
}

// dockerExec runs a shell script in a container.
func dockerExec(d *harness.Dockerd, name, script string) (stdout, stderr string, code int) {
	d.T.Helper()
	var made struct{ Id string } //nolint:revive // the API's name
	d.Decode("POST", "/containers/"+name+"/exec", map[string]any{
		"AttachStdout": true, "AttachStderr": true, "Cmd": []string{"/bin/sh", "-c", script},
	}, &made)
	stdout, stderr = d.Split(d.Call("POST", "/exec/"+made.Id+"/start", map[string]any{}))
	var ended struct{ ExitCode int }
	d.Decode("GET", "/exec/"+made.Id+"/json", nil, &ended)
	return stdout, stderr, ended.ExitCode
}

// busybox loads the test image as "bb".
func busybox(d *harness.Dockerd) {
	d.T.Helper()
	d.Call("POST", "/images/create?fromSrc=-&repo=bb", bytes.NewReader(harness.TarOf(d.T, harness.BusyboxFiles(d.T))))
}
