package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/cleatproject/cleat/client"
)

// fileLog is the prefix of a --log that names a file.
const fileLog = "file://"

// pollLog is the interval at which a followed log is read.
const pollLog = 50 * time.Millisecond

func logsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "logs [FLAGS] CONTAINER", Short: "show the log of a container",
		Long: "A container has a log if it was run with --detach and without --tty, or with --log. The log holds stdout\n" +
			"and stderr in the order of writing.",
		Args: argCount(1, 1), ValidArgsFunction: a.completeArgs(false, listContainers()),
	}
	follow := cmd.Flags().BoolP("follow", "f", false, "follow the log until the container stops")
	tail := cmd.Flags().Int64("tail", -1, "start with the last `NUMBER` lines; -1 shows all")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		return a.withContainer(ctx, args[0], func(c *client.Client, box client.Container) error {
			return showLog(ctx, a, c, box, *tail, *follow)
		})
	}
	return cmd
}

func showLog(ctx context.Context, a *app, c *client.Client, box client.Container, tail int64, follow bool) error {
	if logFile(box) == "" {
		return hinted(fmt.Errorf("show log of %s: container has no log: %w", box.ID, errdefs.ErrFailedPrecondition),
			"run keeps a log with --detach and without --tty, or with --log file:///PATH")
	}
	f, err := openLog(ctx, c, box.ID, logFile(box))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read from
	if tail >= 0 {
		if err := seekTail(f, tail); err != nil {
			return err
		}
	}
	ended := make(chan struct{})
	if !follow || box.Status == "stopped" {
		close(ended)
		return copyLog(ctx, a.stdout, f, ended)
	}
	wctx, cancel := context.WithCancel(ctx)
	var werr error
	go func() {
		defer close(ended)
		_, werr = c.Wait(wctx, box.ID, 0)
	}()
	err = copyLog(ctx, a.stdout, f, ended)
	cancel() // without a reader there is no reason to wait for the container
	<-ended
	if err != nil {
		return err
	}
	if errdefs.IsNotFound(werr) {
		return nil // the container was removed with its log
	}
	return werr
}

// openLog opens the log of a container: the file, or the daemon's view of it if this user may not read the file.
func openLog(ctx context.Context, c *client.Client, id, path string) (io.ReadSeekCloser, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return &remoteLog{ctx: ctx, c: c, id: id}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}

// remoteLog reads a log through the daemon. It ends when the container is removed.
type remoteLog struct {
	ctx context.Context //nolint:containedctx // of the command that reads
	c   *client.Client
	id  string
	at  int64
}

// Read implements io.Reader.
func (l *remoteLog) Read(p []byte) (int, error) {
	data, _, _, err := l.c.ReadLog(l.ctx, l.id, l.at, int64(len(p)))
	switch {
	case errdefs.IsNotFound(err), err == nil && len(data) == 0:
		return 0, io.EOF
	case err != nil:
		return 0, err
	}
	l.at += int64(len(data))
	return copy(p, data), nil
}

// Seek implements io.Seeker.
func (l *remoteLog) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += l.at
	case io.SeekEnd:
		_, _, size, err := l.c.ReadLog(l.ctx, l.id, 0, 1)
		if err != nil {
			return 0, err
		}
		offset += size
	}
	l.at = max(offset, 0)
	return l.at, nil
}

// Close implements io.Closer.
func (l *remoteLog) Close() error { return nil }

// logFile returns the file that a container's output is written to: the daemon's, or that of --log; "" if there is none.
func logFile(box client.Container) string {
	if box.LogPath != "" {
		return box.LogPath
	}
	return filePath(box.Stdio.Stdout)
}

// filePath returns the path of a file:// URL, decoded as the shim decodes it; "" for any other text.
func filePath(text string) string {
	if u, err := url.Parse(text); err == nil && strings.HasPrefix(text, fileLog) {
		return u.Path
	}
	return ""
}

// copyLog copies a log, and what is added to it until ended is closed.
func copyLog(ctx context.Context, out io.Writer, f io.Reader, ended <-chan struct{}) error {
	ticks := time.NewTicker(pollLog)
	defer ticks.Stop()
	for last := false; ; {
		switch _, err := io.Copy(out, f); {
		case errors.Is(err, syscall.EPIPE):
			return writing(err)
		case err != nil:
			return fmt.Errorf("copy log: %w", err)
		}
		if last {
			return nil
		}
		select {
		case <-ended:
			last = true
		case <-ticks.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// seekTail seeks to the start of the last n lines.
func seekTail(f io.ReadSeeker, n int64) error {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("seek in log: %w", err)
	}
	const block = 64 << 10
	buf := make([]byte, block)
	at := end
	for lines := int64(0); at > 0; {
		size := min(at, block)
		if _, err := f.Seek(at-size, io.SeekStart); err != nil {
			return fmt.Errorf("seek in log: %w", err)
		}
		if _, err := io.ReadFull(f, buf[:size]); err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		b := buf[:size]
		if at == end && b[size-1] == '\n' {
			b = b[:size-1] // it ends the last line
		}
		for i := bytes.LastIndexByte(b, '\n'); i >= 0; i = bytes.LastIndexByte(b[:i], '\n') {
			if lines++; lines == n {
				at, lines = at-size+int64(i)+1, n
				_, err := f.Seek(at, io.SeekStart)
				return err
			}
		}
		at -= size
	}
	if n == 0 {
		at = end
	}
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return fmt.Errorf("seek in log: %w", err)
	}
	return nil
}

// runWithLog is run for a process whose output goes to a log: it follows the log.
func (s *session) runWithLog(ctx context.Context, path string) error {
	f, err := openLog(ctx, s.c, s.id, path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read from
	ended := make(chan struct{})
	copied := make(chan error, 1)
	go func() { copied <- copyLog(ctx, s.a.stdout, f, ended) }()
	err = s.run(ctx)
	close(ended)
	cerr := <-copied
	var exit exitCode
	if errors.As(err, &exit) && cerr != nil {
		return cerr
	}
	return err
}
