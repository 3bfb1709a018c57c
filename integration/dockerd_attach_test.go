package integration

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
)

// attached is a connection to a container's stdio: the API hijacks its connection.
type attached struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

// attach connects to a container, before or after its start.
func (d *dockerd) attach(name, query string) *attached {
	d.t.Helper()
	conn, err := net.Dial("unix", d.sock)
	must(d.t, err)
	d.t.Cleanup(func() { _ = conn.Close() })
	must(d.t, conn.SetDeadline(time.Now().Add(limit)))
	_, err = fmt.Fprintf(conn, "POST /v1.41/containers/%s/attach?%s HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", name, query)
	must(d.t, err)
	a := &attached{d.t, conn, bufio.NewReader(conn)}
	resp, err := http.ReadResponse(a.r, nil)
	must(d.t, err)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		d.t.Fatalf("attach to %s: %s", name, resp.Status)
	}
	return a
}

// send writes to the container's stdin.
func (a *attached) send(text string) {
	a.t.Helper()
	_, err := io.WriteString(a.Conn, text)
	must(a.t, err)
}

// next returns the next piece of output, and its stream.
func (a *attached) next() (stream byte, text string) {
	a.t.Helper()
	var header [8]byte
	_, err := io.ReadFull(a.r, header[:])
	must(a.t, err)
	body := make([]byte, binary.BigEndian.Uint32(header[4:]))
	_, err = io.ReadFull(a.r, body)
	must(a.t, err)
	return header[0], string(body)
}

func (a *attached) expect(stream byte, text string) {
	a.t.Helper()
	if s, got := a.next(); s != stream || got != text {
		a.t.Fatalf("stream %d: %q, want %d: %q", s, got, stream, text)
	}
}

func TestDockerd_Attach(t *testing.T) {
	d := Start(t)
	k := startDockerd(t, d.Address)
	k.busybox()
	make := func(name string, tty bool, script string) {
		t.Helper()
		k.call("POST", "/containers/create?name="+name, map[string]any{
			"Image": "bb", "Cmd": []string{"/bin/sh", "-c", script}, "OpenStdin": true, "StdinOnce": true, "Tty": tty,
			"AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "HostConfig": map[string]any{"NetworkMode": "none"},
		})
	}
	make("plain", false, `while read x; do case $x in e*) echo "err $x" >&2;; *) echo "out $x";; esac; done; exit 6`)
	a := k.attach("plain", "stream=1&stdin=1&stdout=1&stderr=1")
	k.call("POST", "/containers/plain/start", nil)
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
	eventually(t, "dockerd is connected again", func() error { // it reports the end of stdin to cleatd once only
		resp, err := k.http.Get("http://docker/v1.41/containers/plain/top")
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			err = errors.New(resp.Status)
		}
		return errors.Join(err, resp.Body.Close())
	}, k.log)
	second := k.attach("plain", "stream=1&stdout=1&logs=1")
	second.expect(1, "out one\n")
	second.expect(1, "out two\n")
	a.send("three\n")
	a.expect(1, "out three\n")
	second.expect(1, "out three\n")
	conn, ok := a.Conn.(*net.UnixConn)
	if !ok {
		t.Fatalf("%T", a.Conn)
	}
	must(t, conn.CloseWrite()) // the end of stdin
	if code := k.wait("plain"); code != 6 {
		t.Errorf("code %d after the end of stdin", code)
	}
	if rest, err := io.ReadAll(a.r); err != nil || len(rest) > 0 {
		t.Errorf("after the exit: %q, %v", rest, err)
	}
	k.call("DELETE", "/containers/plain", nil)

	make("tty", true, "stty size; read x; stty size; exit 4")
	a = k.attach("tty", "stream=1&stdin=1&stdout=1&stderr=1")
	k.call("POST", "/containers/tty/start", nil)
	_, err := a.r.ReadString('\n')
	must(t, err)
	k.call("POST", "/containers/tty/resize?h=41&w=97", nil)
	a.send("\n")
	out, err := io.ReadAll(a.r)
	if err != nil || string(out) != "\r\n41 97\r\n" {
		t.Errorf("terminal: %q, %v", out, err)
	}
	if code := k.wait("tty"); code != 4 {
		t.Errorf("code %d", code)
	}
	k.call("DELETE", "/containers/tty", nil)

	make("detached", true, "read x; exit 8")
	a = k.attach("detached", "stream=1&stdin=1&stdout=1&detachKeys=ctrl-p,ctrl-q")
	k.call("POST", "/containers/detached/start", nil)
	a.send("\x10\x11")
	if _, err := io.ReadAll(a.r); err != nil {
		t.Errorf("detach: %v", err)
	}
	if s := k.inspect("detached"); s.State.Status != "running" {
		t.Errorf("after detaching: %+v", s)
	}
	killPid(t, k.inspect("detached").State.Pid)
	if s := k.is("detached", "exited"); s.State.ExitCode != 128+int(unix.SIGKILL) {
		t.Errorf("killed: %+v", s)
	}
	k.call("DELETE", "/containers/detached", nil)
}
