package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Processor is a program that converts a stream of one media type to another, from its standard input
// to its standard output: decryption, for example. It is configured by the administrator, and runs with
// the privileges of this process, in a process group of its own.
//
// Its environment is Env and, as published for containerd's stream processors,
// STREAM_PROCESSOR_MEDIATYPE with the type of its input, and if it has a payload,
// STREAM_PROCESSOR_PIPE with a path to read that from, which is its descriptor 3.
type Processor struct {
	// ID is its name, by which payloads refer to it.
	ID string
	// Accepts are the media types it reads, Returns is the one it writes.
	Accepts []string
	Returns string
	// Path is absolute, and only root can write the file.
	Path string
	Args []string
	Env  []string
}

// Check refuses a processor that cannot work: an invalid argument, or, because of the file at its path,
// failed precondition.
func (p Processor) Check() error {
	switch {
	case !filepath.IsAbs(p.Path):
		return fmt.Errorf("stream processor %s: path %q: want an absolute path: %w", p.ID, p.Path, errdefs.ErrInvalidArgument)
	case len(p.Accepts) == 0 || p.Returns == "":
		return fmt.Errorf("stream processor %s: want the media types it accepts, and the one it returns: %w", p.ID, errdefs.ErrInvalidArgument)
	case slices.Contains(p.Accepts, p.Returns):
		return fmt.Errorf("stream processor %s: returned type %s is also accepted: %w", p.ID, p.Returns, errdefs.ErrInvalidArgument)
	}
	return nil
}

// maxProcessors bounds the processors of one stream.
const maxProcessors = 8

// processorsFor returns the processors for a media type, in their order.
func processorsFor(all []Processor, mediaType string) (chain []Processor) {
	for len(chain) < maxProcessors {
		i := slices.IndexFunc(all, func(p Processor) bool { return slices.Contains(p.Accepts, mediaType) })
		if i < 0 {
			break
		}
		chain = append(chain, all[i])
		mediaType = all[i].Returns
	}
	return chain
}

// Processed returns the media type after the processors.
func Processed(all []Processor, mediaType string) string {
	if chain := processorsFor(all, mediaType); len(chain) > 0 {
		return chain[len(chain)-1].Returns
	}
	return mediaType
}

// Process returns a stream of a media type after the processors; if none accepts it, the
// stream unchanged. Payloads are by the processors' names. The caller closes the result before r. The
// programs end with ctx, or when the result is closed. One that fails gives failed precondition, with
// the last part of its standard error.
func Process(ctx context.Context, all []Processor, mediaType string, r io.Reader, payloads map[string][]byte) (io.ReadCloser, error) {
	out := &processing{Reader: r}
	for _, p := range processorsFor(all, mediaType) {
		step, err := p.start(ctx, mediaType, out.Reader, payloads[p.ID])
		if err != nil {
			return nil, errors.Join(err, out.Close())
		}
		out.Reader = step
		out.steps = append(out.steps, step)
		mediaType = p.Returns
	}
	return out, nil
}

// processing is a stream that passes through programs.
type processing struct {
	io.Reader
	steps []io.Closer
}

// Close implements io.Closer.
func (p *processing) Close() error {
	var errs error
	// The last one first: those that feed it notice that the pipe has no reader any more.
	for _, step := range slices.Backward(p.steps) {
		errs = errors.Join(errs, step.Close())
	}
	return errs
}

// waitDelay is how long a program's children may hold its standard error after its end.
const waitDelay = time.Second

// start runs the program on a source.
func (p Processor) start(ctx context.Context, mediaType string, src io.Reader, payload []byte) (_ io.ReadCloser, err error) {
	if err := (Helper{Path: p.Path}).check(); err != nil {
		return nil, fmt.Errorf("stream processor %s: %w", p.ID, err)
	}
	said := new(tail)
	cmd := &exec.Cmd{
		Path: p.Path, Args: append([]string{p.Path}, p.Args...), Dir: "/", Stderr: said,
		Env:         append(slices.Clone(p.Env), "STREAM_PROCESSOR_MEDIATYPE="+mediaType),
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
		WaitDelay:   waitDelay,
	}
	if payload != nil {
		f, err := payloadFile(payload)
		if err != nil {
			return nil, fmt.Errorf("stream processor %s: %w", p.ID, err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		cmd.ExtraFiles = []*os.File{f}
		cmd.Env = append(cmd.Env, "STREAM_PROCESSOR_PIPE=/proc/self/fd/3")
	}
	in := &input{ctx: ctx.Err, r: src}
	at, err := pipeThrough(cmd, in, in, func(exit error) error {
		if ctx.Err() != nil {
			return fmt.Errorf("stream processor %s: %w", p.ID, ctx.Err())
		}
		return fmt.Errorf("stream processor %s failed on %s: %w: %s: %w", p.ID, mediaType, exit, said, errdefs.ErrFailedPrecondition)
	})
	if err != nil {
		return nil, fmt.Errorf("stream processor %s: %w", p.ID, err)
	}
	return at.until(ctx), nil
}

// payloadFile returns a file in memory with the payload, positioned at its beginning.
func payloadFile(payload []byte) (_ *os.File, err error) {
	fd, err := unix.MemfdCreate("payload", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make file for the payload: %w", err)
	}
	f := os.NewFile(uintptr(fd), "payload")
	_, err = f.Write(payload)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// tail keeps the last bytes written to it.
type tail struct{ text []byte }

// maxTail is the number of bytes kept.
const maxTail = 1 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if len(t.text) > maxTail {
		t.text = bytes.Clone(t.text[len(t.text)-maxTail:])
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(t.text)) }
