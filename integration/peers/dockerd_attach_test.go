package peers

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/integration/harness"
)

// attached is a connection to a container's stdio: the API hijacks its connection.
type attached struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

// attach connects to a container, before or after its start.
func attach(d *harness.Dockerd, name, query string) *attached {
	d.T.Helper()
	conn, err := net.Dial("unix", d.Sock)
	harness.Must(d.T, err)
	d.T.Cleanup(func() { _ = conn.Close() })
	harness.Must(d.T, conn.SetDeadline(time.Now().Add(harness.Limit)))
	_, err = fmt.Fprintf(conn, "POST /v1.41/containers/%s/attach?%s HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", name, query)
	harness.Must(d.T, err)
	a := &attached{d.T, conn, bufio.NewReader(conn)}
	resp, err := http.ReadResponse(a.r, nil)
	harness.Must(d.T, err)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		d.T.Fatalf("attach to %s: %s", name, resp.Status)
	}
	return a
}

// send writes to the container's stdin.
func (a *attached) send(text string) {
	a.t.Helper()
	_, err := io.WriteString(a.Conn, text)
	harness.Must(a.t, err)
}

// next returns the next piece of output, and its stream.
func (a *attached) next() (stream byte, text string) {
	a.t.Helper()
	var header [8]byte
	_, err := io.ReadFull(a.r, header[:])
	harness.Must(a.t, err)
	body := make([]byte, binary.BigEndian.Uint32(header[4:]))
	_, err = io.ReadFull(a.r, body)
	harness.Must(a.t, err)
	return header[0], string(body)
}

func (a *attached) expect(stream byte, text string) {
	a.t.Helper()
	if s, got := a.next(); s != stream || got != text {
		a.t.Fatalf("stream %d: %q, want %d: %q", s, got, stream, text)
	}
}

func TestDockerd_Attach(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	k := harness.StartDockerd(t, d.Address)
	busybox(k)
	create := func(name string, tty bool, script string) {
		t.Helper()
		k.Call("POST", "/containers/create?name="+name, map[string]any{
			"Image": "bb", "Cmd": []string{"/bin/sh", "-c", script}, "OpenStdin": true, "StdinOnce": true, "Tty": tty,
			"AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "HostConfig": map[string]any{"NetworkMode": "none"},
		})
	}
	create("plain", false, `while read x; do case $x in e*) echo "err $x" >&2;; *) echo "out $x";; esac; done; exit 6`)
	a := attach(k, "plain", "stream=1&stdin=1&stdout=1&stderr=1")
	k.Call("POST", "/containers/plain/start", nil)
	a.send("one\n")
	a.expect(1, "out one\n")
	a.send("e1\n")
	a.expect(2, "err e1\n")

	d.Kill9() // the stdio of a container does not pass through the daemon
	a.send("two\n")
	a.expect(1, "out two\n")
	a.send("e2\n")
	a.expect(2, "err e2\n")
	d.Begin()
	harness.Eventually(t, "dockerd is connected again", func() error { // it reports the end of stdin to cleatd once only
		resp, err := k.HTTP.Get("http://docker/v1.41/containers/plain/top")
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			err = errors.New(resp.Status)
		}
		return errors.Join(err, resp.Body.Close())
	}, k.Log)
	second := attach(k, "plain", "stream=1&stdout=1&logs=1")
	second.expect(1, "out one\n")
	second.expect(1, "out two\n")
	a.send("three\n")
	a.expect(1, "out three\n")
	second.expect(1, "out three\n")
	conn, ok := a.Conn.(*net.UnixConn)
	if !ok {
		t.Fatalf("%T", a.Conn)
	}
	harness.Must(t, conn.CloseWrite()) // the end of stdin
	if code := k.Wait("plain"); code != 6 {
		t.Errorf("code %d after the end of stdin", code)
	}
	if rest, err := io.ReadAll(a.r); err != nil || len(rest) > 0 {
		t.Errorf("after the exit: %q, %v", rest, err)
	}
	k.Call("DELETE", "/containers/plain", nil)

	create("tty", true, "stty size; read x; stty size; exit 4")
	a = attach(k, "tty", "stream=1&stdin=1&stdout=1&stderr=1")
	k.Call("POST", "/containers/tty/start", nil)
	_, err := a.r.ReadString('\n')
	harness.Must(t, err)
	k.Call("POST", "/containers/tty/resize?h=41&w=97", nil)
	a.send("\n")
	out, err := io.ReadAll(a.r)
	if err != nil || string(out) != "\r\n41 97\r\n" {
		t.Errorf("terminal: %q, %v", out, err)
	}
	if code := k.Wait("tty"); code != 4 {
		t.Errorf("code %d", code)
	}
	k.Call("DELETE", "/containers/tty", nil)

	create("detached", true, "read x; exit 8")
	a = attach(k, "detached", "stream=1&stdin=1&stdout=1&detachKeys=ctrl-p,ctrl-q")
	k.Call("POST", "/containers/detached/start", nil)
	a.send("\x10\x11")
	if _, err := io.ReadAll(a.r); err != nil {
		t.Errorf("detach: %v", err)
	}
	if s := inspect(k, "detached"); s.State.Status != "running" {
		t.Errorf("after detaching: %+v", s)
	}
	harness.KillPid(t, inspect(k, "detached").State.Pid)
	if s := is(k, "detached", "exited"); s.State.ExitCode != 128+int(unix.SIGKILL) {
		t.Errorf("killed: %+v", s)
	}
	k.Call("DELETE", "/containers/detached", nil)
}
