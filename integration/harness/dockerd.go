package harness

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Dockerd is Debian's dockerd on the socket of a cleatd, with its own directories.
type Dockerd struct {
	T          *testing.T
	containerd string
	base, Sock string
	cmd        *exec.Cmd
	HTTP       http.Client
}

// StartDockerd starts a dockerd, which is stopped at the end of the test.
func StartDockerd(t *testing.T, containerd string) *Dockerd {
	t.Helper()
	base, err := os.MkdirTemp("", "cleat-dockerd")
	Must(t, err)
	d := &Dockerd{T: t, containerd: containerd, base: base, Sock: filepath.Join(base, "docker.sock")}
	d.HTTP.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", d.Sock)
	}}
	Must(t, os.WriteFile(filepath.Join(base, "daemon.json"), []byte("{}"), 0o600))
	t.Cleanup(func() {
		d.End(unix.SIGTERM)
		if t.Failed() {
			t.Logf("dockerd's log:\n%s", d.Log())
		}
		// It bind-mounts its data-root on itself.
		if err := unix.Unmount(filepath.Join(base, "root"), 0); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Error(err)
		}
		Must(t, os.RemoveAll(base))
	})
	d.Begin()
	return d
}

// Begin starts its process and waits until it answers.
func (d *Dockerd) Begin() {
	d.T.Helper()
	log, err := os.OpenFile(filepath.Join(d.base, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	Must(d.T, err)
	defer log.Close()
	d.cmd = exec.Command("dockerd", "--containerd", d.containerd, "--config-file", filepath.Join(d.base, "daemon.json"),
		"--data-root", filepath.Join(d.base, "root"), "--exec-root", filepath.Join(d.base, "exec"),
		"--pidfile", filepath.Join(d.base, "pid"), "--host", "unix://"+d.Sock,
		"--iptables=false", "--bridge=none", "--storage-driver", "overlay2", "--live-restore")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	Must(d.T, d.cmd.Start())
	Eventually(d.T, "dockerd answers", func() error {
		resp, err := d.HTTP.Get("http://docker/_ping")
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}, d.Log)
}

// End sends its process a signal and waits for its end.
func (d *Dockerd) End(sig os.Signal) {
	d.T.Helper()
	Must(d.T, d.cmd.Process.Signal(sig))
	_ = d.cmd.Wait() // the status does not matter
	d.HTTP.CloseIdleConnections()
}

// Log returns what dockerd logged.
func (d *Dockerd) Log() string {
	data, err := os.ReadFile(filepath.Join(d.base, "log"))
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// Call makes a request of the API, which must succeed; body is nil, a reader, or a value to encode as JSON.
func (d *Dockerd) Call(method, path string, body any) []byte {
	d.T.Helper()
	ctx, cancel := context.WithTimeout(d.T.Context(), Limit)
	defer cancel()
	var r io.Reader
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case io.Reader:
		r, kind = b, "application/x-tar"
	default:
		data, err := json.Marshal(b)
		Must(d.T, err)
		r = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://docker/v1.41"+path, r)
	Must(d.T, err)
	req.Header.Set("Content-Type", kind)
	resp, err := d.HTTP.Do(req)
	Must(d.T, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 400 {
		d.T.Fatalf("%s %s: %s, %v: %s\n%s", method, path, resp.Status, err, data, d.Log())
	}
	return data
}

// Decode makes a request and decodes its answer.
func (d *Dockerd) Decode(method, path string, body, into any) {
	d.T.Helper()
	if data := d.Call(method, path, body); json.Unmarshal(data, into) != nil {
		d.T.Fatalf("%s %s: invalid JSON %s", method, path, data)
	}
}

// Create creates a container of a shell script and starts it.
func (d *Dockerd) Create(name, script string, host map[string]any) (id string) {
	d.T.Helper()
	config := map[string]any{"NetworkMode": "none"}
	for k, v := range host {
		config[k] = v
	}
	var made struct{ Id string } //nolint:revive // the API's name
	d.Decode("POST", "/containers/create?name="+name, map[string]any{
		"Image": "bb", "Cmd": []string{"/bin/sh", "-c", script}, "HostConfig": config,
	}, &made)
	d.Call("POST", "/containers/"+name+"/start", nil)
	return made.Id
}

// Wait waits for a container's end.
func (d *Dockerd) Wait(name string) int {
	d.T.Helper()
	var ended struct{ StatusCode int }
	d.Decode("POST", "/containers/"+name+"/wait", nil, &ended)
	return ended.StatusCode
}

// Logs returns what a container has written.
func (d *Dockerd) Logs(name string) (stdout, stderr string) {
	d.T.Helper()
	return d.Split(d.Call("GET", "/containers/"+name+"/logs?stdout=1&stderr=1", nil))
}

// Split separates the two outputs of a stream; each piece has its own header.
func (d *Dockerd) Split(data []byte) (stdout, stderr string) {
	d.T.Helper()
	for len(data) > 0 {
		if len(data) < 8 || int(binary.BigEndian.Uint32(data[4:])) > len(data)-8 {
			d.T.Fatalf("no stream: %q", data)
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
