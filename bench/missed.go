package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	apievents "github.com/cleatproject/cleat/proto/events"
)

// missedScenario ends a container of dockerd while cleatd is down. dockerd tries to connect at intervals
// that grow to about 3 s while there is no daemon; a client that retries all the time shows cleatd's share.
func missedScenario() scenario {
	return scenario{
		name: "missed", unit: "ms", rounds: 5,
		what: "from cleatd's start until an exit that was missed is known, with its code",
		targets: []target{
			{variant: "dockerd's inspect, cleatd down for 1 s", limit: 2000},
			{variant: "a client that retries all the time", limit: 2000},
		},
		prepare: prepareMissed,
	}
}

// docker is Debian's dockerd on cleatd's socket, with directories of its own.
type docker struct {
	dir     string
	process *exec.Cmd
	log     *os.File
	http    http.Client
}

func prepareMissed(ctx context.Context, e *environment) (_ []variant, _ func() error, err error) {
	d, err := startDocker(ctx, e)
	if err != nil {
		return nil, d.stop, err
	}
	client := func(ctx context.Context, _, id string) error { return e.exitReported(ctx, id) }
	return []variant{
		{"dockerd's inspect, cleatd down for 1 s", func(ctx context.Context) (float64, error) { return d.missed(ctx, e, time.Second, d.exitShown) }},
		{"the same, down for 10 s", func(ctx context.Context) (float64, error) { return d.missed(ctx, e, 10*time.Second, d.exitShown) }},
		{"a client that retries all the time", func(ctx context.Context) (float64, error) { return d.missed(ctx, e, time.Second, client) }},
	}, d.stop, nil
}

func startDocker(ctx context.Context, e *environment) (*docker, error) {
	d := &docker{dir: filepath.Join(e.dir, "docker")}
	d.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", filepath.Join(d.dir, "sock"))
	}}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return d, fmt.Errorf("read busybox: %w", err)
	}
	files, err := tarOf(layerFiles(busybox))
	if err != nil {
		return d, err
	}
	config := filepath.Join(d.dir, "daemon.json")
	if err := errors.Join(os.Mkdir(d.dir, 0o700), os.WriteFile(config, []byte("{}"), 0o600)); err != nil {
		return d, fmt.Errorf("configure dockerd: %w", err)
	}
	if d.log, err = os.Create(filepath.Join(d.dir, "log")); err != nil {
		return d, fmt.Errorf("start dockerd: %w", err)
	}
	cmd := exec.Command("dockerd", "--containerd", e.cleat.address, "--config-file", config,
		"--data-root", filepath.Join(d.dir, "root"), "--exec-root", filepath.Join(d.dir, "exec"),
		"--pidfile", filepath.Join(d.dir, "pid"), "--host", "unix://"+filepath.Join(d.dir, "sock"),
		"--iptables=false", "--bridge=none", "--storage-driver", "overlay2", "--live-restore")
	cmd.Stdout, cmd.Stderr = d.log, d.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return d, fmt.Errorf("start dockerd (Debian: docker.io): %w", err)
	}
	d.process = cmd
	if err := poll(ctx, func() error { return d.call(ctx, "GET", "/_ping", nil, nil) }); err != nil {
		return d, fmt.Errorf("start dockerd: %w", err)
	}
	return d, d.call(ctx, "POST", "/images/create?fromSrc=-&repo=bench", bytes.NewReader(files), nil)
}

// stop ends dockerd; its directory is removed with the benchmark's.
func (d *docker) stop() error {
	if d.process == nil {
		return nil
	}
	err := d.process.Process.Signal(syscall.SIGTERM)
	_ = d.process.Wait() // an exit by the signal is expected
	d.http.CloseIdleConnections()
	return errors.Join(err, d.log.Close())
}

// call makes a request of dockerd's API. body is nil, an archive, or a value to encode as JSON.
func (d *docker) call(ctx context.Context, method, path string, body, into any) error {
	var r io.Reader
	kind := "application/x-tar"
	switch b := body.(type) {
	case nil:
	case io.Reader:
		r = b
	default:
		data, err := json.Marshal(b)
		if err != nil {
			return err
		}
		r, kind = bytes.NewReader(data), "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://docker/v1.41"+path, r)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", kind)
	resp, err := d.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("dockerd: %s %s: %s: %w: %s", method, path, resp.Status, err, data)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(data, into)
}

// dockerState is a part of the output of inspect.
type dockerState struct {
	State struct {
		Status        string
		Pid, ExitCode int
	}
}

// missed kills one container while cleatd is down. known returns nil once the exit is known.
func (d *docker) missed(
	ctx context.Context, e *environment, away time.Duration, known func(ctx context.Context, at, id string) error,
) (_ float64, err error) {
	name := e.nextID("missed")
	at := "/containers/" + name
	var made struct{ ID string }
	err = d.call(ctx, "POST", "/containers/create?name="+name, map[string]any{
		"Image": "bench", "Cmd": []string{"/bin/sleep", "100000"}, "HostConfig": map[string]any{"NetworkMode": "none"},
	}, &made)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, d.call(ctx, "DELETE", at+"?force=1", nil, nil)) }()
	var s dockerState
	err = errors.Join(d.call(ctx, "POST", at+"/start", nil, nil), d.call(ctx, "GET", at+"/json", nil, &s))
	if err != nil {
		return 0, err
	}
	if err := e.killCleat(); err != nil {
		return 0, err
	}
	if err := syscall.Kill(s.State.Pid, syscall.SIGKILL); err != nil {
		return 0, fmt.Errorf("kill the container's process %d: %w", s.State.Pid, err)
	}
	timer := time.NewTimer(away)
	defer timer.Stop()
	<-timer.C
	began := time.Now()
	if err := e.startCleat(ctx); err != nil {
		return 0, err
	}
	err = poll(ctx, func() error { return known(ctx, at, made.ID) })
	return milliseconds(time.Since(began)), err
}

// killedCode is the exit code of a process ended by SIGKILL.
const killedCode = 128 + int(syscall.SIGKILL)

// exitShown checks the state shown by dockerd.
func (d *docker) exitShown(ctx context.Context, at, _ string) error {
	var s dockerState
	if err := d.call(ctx, "GET", at+"/json", nil, &s); err != nil {
		return err
	}
	if s.State.Status != "exited" || s.State.ExitCode != killedCode {
		return fmt.Errorf("dockerd shows %+v", s.State)
	}
	return nil
}

// exitReported subscribes to cleatd's events and waits for the exit of a container.
func (e *environment) exitReported(ctx context.Context, id string) error {
	conn, err := grpc.NewClient("unix://"+e.cleat.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stream, err := eventsapi.NewEventsClient(conn).Subscribe(ctx, &eventsapi.SubscribeRequest{Filters: []string{"topic==/tasks/exit"}})
	if err != nil {
		return err
	}
	for {
		envelope, err := stream.Recv()
		if err != nil {
			return err
		}
		var exit apievents.TaskExit
		if err := exit.Unmarshal(envelope.GetEvent().GetValue()); err != nil {
			return err
		}
		if exit.Id == id && int(exit.ExitStatus) == killedCode {
			return nil
		}
	}
}
