package integration

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dockerd is Debian's dockerd on the socket of a cleatd, with its own directories.
type dockerd struct {
	t          *testing.T
	containerd string
	base, sock string
	cmd        *exec.Cmd
	http       http.Client
}

// startDockerd starts a dockerd, which is stopped at the end of the test.
func startDockerd(t *testing.T, containerd string) *dockerd {
	t.Helper()
	base, err := os.MkdirTemp("", "cleat-dockerd")
	must(t, err)
	d := &dockerd{t: t, containerd: containerd, base: base, sock: filepath.Join(base, "docker.sock")}
	d.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", d.sock)
	}}
	must(t, os.WriteFile(filepath.Join(base, "daemon.json"), []byte("{}"), 0o600))
	t.Cleanup(func() {
		d.end(unix.SIGTERM)
		if t.Failed() {
			t.Logf("dockerd's log:\n%s", d.log())
		}
		// It bind-mounts its data-root on itself.
		if err := unix.Unmount(filepath.Join(base, "root"), 0); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Error(err)
		}
		must(t, os.RemoveAll(base))
	})
	d.begin()
	return d
}

// begin starts its process and waits until it answers.
func (d *dockerd) begin() {
	d.t.Helper()
	log, err := os.OpenFile(filepath.Join(d.base, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	must(d.t, err)
	defer log.Close()
	d.cmd = exec.Command("dockerd", "--containerd", d.containerd, "--config-file", filepath.Join(d.base, "daemon.json"),
		"--data-root", filepath.Join(d.base, "root"), "--exec-root", filepath.Join(d.base, "exec"),
		"--pidfile", filepath.Join(d.base, "pid"), "--host", "unix://"+d.sock,
		"--iptables=false", "--bridge=none", "--storage-driver", "overlay2", "--live-restore")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	must(d.t, d.cmd.Start())
	eventually(d.t, "dockerd answers", func() error {
		resp, err := d.http.Get("http://docker/_ping")
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}, d.log)
}

// end sends its process a signal and waits for its end.
func (d *dockerd) end(sig os.Signal) {
	d.t.Helper()
	must(d.t, d.cmd.Process.Signal(sig))
	_ = d.cmd.Wait() // the status does not matter
	d.http.CloseIdleConnections()
}

func (d *dockerd) log() string {
	data, err := os.ReadFile(filepath.Join(d.base, "log"))
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// call makes a request of the API, which must succeed; body is nil, a reader, or a value to encode as JSON.
func (d *dockerd) call(method, path string, body any) []byte {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), limit)
	defer cancel()
	var r io.Reader
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case io.Reader:
		r, kind = b, "application/x-tar"
	default:
		data, err := json.Marshal(b)
		must(d.t, err)
		r = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://docker/v1.41"+path, r)
	must(d.t, err)
	req.Header.Set("Content-Type", kind)
	resp, err := d.http.Do(req)
	must(d.t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 400 {
		d.t.Fatalf("%s %s: %s, %v: %s\n%s", method, path, resp.Status, err, data, d.log())
	}
	return data
}

// decode makes a request and decodes its answer.
func (d *dockerd) decode(method, path string, body, into any) {
	d.t.Helper()
	if data := d.call(method, path, body); json.Unmarshal(data, into) != nil {
		d.t.Fatalf("%s %s: invalid JSON %s", method, path, data)
	}
}

// create creates a container of a shell script and starts it.
func (d *dockerd) create(name, script string, host map[string]any) (id string) {
	d.t.Helper()
	config := map[string]any{"NetworkMode": "none"}
	for k, v := range host {
		config[k] = v
	}
	var made struct{ Id string } //nolint:revive // the API's name
	d.decode("POST", "/containers/create?name="+name, map[string]any{
		"Image": "bb", "Cmd": []string{"/bin/sh", "-c", script}, "HostConfig": config,
	}, &made)
	d.call("POST", "/containers/"+name+"/start", nil)
	return made.Id
}

// wait waits for a container's end.
func (d *dockerd) wait(name string) int {
	d.t.Helper()
	var ended struct{ StatusCode int }
	d.decode("POST", "/containers/"+name+"/wait", nil, &ended)
	return ended.StatusCode
}

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

func (d *dockerd) inspect(name string) (s dockerState) {
	d.t.Helper()
	d.decode("GET", "/containers/"+name+"/json", nil, &s)
	return s
}

// is waits until a container has a status.
func (d *dockerd) is(name, status string) (s dockerState) {
	d.t.Helper()
	eventually(d.t, name+" is "+status, func() error {
		if s = d.inspect(name); s.State.Status != status {
			return fmt.Errorf("%s is %+v", name, s)
		}
		return nil
	}, d.log)
	return s
}

// exec runs a shell script in a container.
func (d *dockerd) exec(name, script string) (stdout, stderr string, code int) {
	d.t.Helper()
	var made struct{ Id string } //nolint:revive // the API's name
	d.decode("POST", "/containers/"+name+"/exec", map[string]any{
		"AttachStdout": true, "AttachStderr": true, "Cmd": []string{"/bin/sh", "-c", script},
	}, &made)
	stdout, stderr = d.split(d.call("POST", "/exec/"+made.Id+"/start", map[string]any{}))
	var ended struct{ ExitCode int }
	d.decode("GET", "/exec/"+made.Id+"/json", nil, &ended)
	return stdout, stderr, ended.ExitCode
}

// logs returns what a container has written.
func (d *dockerd) logs(name string) (stdout, stderr string) {
	d.t.Helper()
	return d.split(d.call("GET", "/containers/"+name+"/logs?stdout=1&stderr=1", nil))
}

// split separates the two outputs of a stream; each piece has its own header.
func (d *dockerd) split(data []byte) (stdout, stderr string) {
	d.t.Helper()
	for len(data) > 0 {
		if len(data) < 8 || int(binary.BigEndian.Uint32(data[4:])) > len(data)-8 {
			d.t.Fatalf("no stream: %q", data)
		}
		piece := data[8 : 8+binary.BigEndian.Uint32(data[4:])]
		if data[0] == 2 {
			stderr += string(piece)
		} else {
			stdout += string(piece)
		}
		data = data[8+len(piece):]
	}
	return stdout, stderr
}

// busybox loads the test image as "bb".
func (d *dockerd) busybox() {
	d.t.Helper()
	d.call("POST", "/images/create?fromSrc=-&repo=bb", bytes.NewReader(tarOf(d.t, busyboxFiles(d.t))))
}
