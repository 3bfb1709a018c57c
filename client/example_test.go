package client_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/client/spec"
	"github.com/cleatproject/cleat/client/stdio"
	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/rpc"
)

// runEcho runs a command of an image and prints its output, as a program that embeds the client
// does.
func runEcho(ctx context.Context, address string) (code uint32, err error) {
	c, err := client.Dial(ctx, address, client.Options{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	image, err := c.Inspect(ctx, "busybox", "")
	if err != nil {
		return 0, err
	}
	config, err := spec.ParseImage(image.Config)
	if err != nil {
		return 0, err
	}
	s, err := spec.Generate(config, spec.Options{Args: []string{"echo", "all fast"}})
	if err != nil {
		return 0, err
	}
	io, err := stdio.New(c.StdioRoot(), stdio.Want{Stdout: true, Stderr: true})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, io.Close()) }()
	started, err := c.Run(ctx, client.RunRequest{
		Image: "busybox", Spec: s, User: config.User, AutoRemove: true,
		Stdio: client.Stdio{Stdout: io.Paths.Stdout, Stderr: io.Paths.Stderr},
	})
	if err != nil {
		return 0, err
	}
	if err := io.Started(); err != nil {
		return 0, err
	}
	io.Copy(stdio.Streams{Out: os.Stdout, Err: os.Stderr})
	exit, err := c.Wait(ctx, started.ID, started.Cursor)
	return exit.Status, errors.Join(err, io.Finish(ctx))
}

func Example() {
	dir, err := os.MkdirTemp("", "cleat")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// Stands in for cleatd, which listens at client.DefaultAddress.
	address := filepath.Join(dir, "cleat.sock")
	stop, err := pretendDaemon(address)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()

	code, err := runEcho(context.Background(), address)
	fmt.Println("exit code", code, err)
	// Output:
	// all fast
	// exit code 0 <nil>
}

// pretendDaemon serves the calls of runEcho; its containers only write to a FIFO.
func pretendDaemon(address string) (stop func(), err error) {
	server, err := ttrpc.NewServer()
	if err != nil {
		return nil, err
	}
	server.RegisterService(cleatapi.ImagesService, methods(map[string]ttrpc.Method{
		"Inspect": rpc.Unary(func(context.Context, *cleatapi.InspectImageRequest) (*cleatapi.InspectImageResponse, error) {
			return &cleatapi.InspectImageResponse{Config: []byte(`{"config":{"Cmd":["sh"]}}`)}, nil
		}),
	}))
	server.RegisterService(cleatapi.ContainersService, methods(map[string]ttrpc.Method{
		"Run": rpc.Unary(func(_ context.Context, r *cleatapi.RunRequest) (*cleatapi.RunResponse, error) {
			err := os.WriteFile(r.Stdout, []byte("all fast\n"), 0)
			return &cleatapi.RunResponse{Id: "x", Cursor: 1}, err
		}),
		"Wait": rpc.Unary(func(_ context.Context, r *cleatapi.WaitRequest) (*cleatapi.WaitResponse, error) {
			if r.Id != "x" {
				return nil, fmt.Errorf("container %s: %w", r.Id, errdefs.ErrNotFound)
			}
			return &cleatapi.WaitResponse{}, nil
		}),
	}))
	l, err := rpc.Listen(address+".ttrpc", 0o600)
	if err != nil {
		return nil, err
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(context.Background(), l)
	}()
	return func() {
		_ = server.Close()
		<-served
	}, nil
}
