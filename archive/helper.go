package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Helper is a program that decompresses its standard input to its standard output, and fails if
// the input is corrupt or truncated.
type Helper struct {
	// Format is the format that it reads.
	Format Compression
	// Path is absolute: helpers are never looked up in a PATH.
	Path string
	Args []string
}

// Helpers returns the programs of this system that decompress faster than this package does. They
// are expected at the paths of Debian's packages isal and pigz, and only used if only root
// can have put them there.
func Helpers() []Helper {
	for _, h := range []Helper{
		{Gzip, "/usr/bin/igzip", []string{"-d", "-c"}},
		{Gzip, "/usr/bin/unpigz", []string{"-c"}},
	} {
		if h.check() == nil {
			return []Helper{h}
		}
	}
	return nil
}

// check refuses a program that users other than root could have written.
func (h Helper) check() error {
	var st unix.Stat_t
	if err := unix.Stat(h.Path, &st); err != nil {
		return fmt.Errorf("decompressor %s: %w", h.Path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 || st.Mode&0o022 != 0 || st.Uid != 0 {
		return fmt.Errorf("decompressor %s: want an executable file that only root can write: %w", h.Path, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// pipeSize is the capacity of the pipes to and from a helper, in bytes; smaller if the system limits it.
const pipeSize = 1 << 20

// nobodyID is the user of a helper, if this process can change users.
const nobodyID = 65534

// start runs the helper on a source. It gets two pipes, no environment, and nothing else.
func (h Helper) start(ctx context.Context, src io.WriterTo, in *input) (io.ReadCloser, error) {
	p, err := pipeThrough(h.command(), src, in, func(exit error) error { return h.failed(ctx, exit) })
	if err != nil {
		return nil, err
	}
	return p.until(ctx), nil
}

// startOn runs the helper on a file, which it closes here: the helper reads it itself, which saves a
// copy into a pipe and one from it.
func (h Helper) startOn(ctx context.Context, file *os.File, in *input) (_ io.ReadCloser, err error) {
	defer func() { err = errors.Join(err, file.Close()) }()
	cmd := h.command()
	cmd.Stdin = file
	p, err := readFrom(cmd, in, func(exit error) error {
		// Reading it again shows whether the data or the disk was the cause.
		if _, err := io.Copy(io.Discard, in); err != nil {
			return err
		}
		return h.failed(ctx, exit)
	})
	if err != nil {
		return nil, err
	}
	return p.until(ctx), nil
}

func (h Helper) command() *exec.Cmd {
	cmd := &exec.Cmd{
		Path: h.Path, Args: append([]string{h.Path}, h.Args...), Env: []string{}, Dir: "/",
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobodyID, Gid: nobodyID}
	}
	return cmd
}

func (h Helper) failed(ctx context.Context, exit error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("decompress: %w", err)
	}
	return fmt.Errorf("compressed data is damaged or cut short: %s: %w: %w: %w", h.Path, exit, io.ErrUnexpectedEOF, errdefs.ErrInvalidArgument)
}

// helped is a program that processes a stream.
type helped struct {
	cmd    *exec.Cmd
	in     *input
	out, w *os.File               // its output, and its input or nil
	failed func(exit error) error // returns the error for a failed program
	fed    <-chan error           // closed once the source has been read, or the program has stopped reading
	once   sync.Once
	ended  error // returned by every later Read
}

// pipeThrough starts a program with the source as its standard input; its output is read from the
// result.
func pipeThrough(cmd *exec.Cmd, src io.WriterTo, in *input, failed func(exit error) error) (_ *helped, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // the program has its own
	enlarge(w)
	cmd.Stdin = r
	p, err := readFrom(cmd, in, failed)
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	fed := make(chan error, 1)
	p.w, p.fed = w, fed
	go p.feed(src, fed)
	return p, nil
}

// readFrom starts a program that has its standard input; its output is read from the result.
func readFrom(cmd *exec.Cmd, in *input, failed func(exit error) error) (*helped, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	enlarge(r)
	cmd.Stdout = w
	defer func() { _ = w.Close() }() // the program has its own
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", cmd.Path, err), r.Close())
	}
	fed := make(chan error)
	close(fed) // no source
	return &helped{cmd: cmd, in: in, out: r, failed: failed, fed: fed}, nil
}

// enlarge increases the capacity of a pipe; beyond a limit it stays smaller. The descriptor remains
// non-blocking, which deadlines need.
func enlarge(f *os.File) {
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
}

// feed copies the source to the program.
func (p *helped) feed(src io.WriterTo, fed chan<- error) {
	_, err := src.WriteTo(p.w)
	if errors.Is(err, syscall.EPIPE) {
		err = nil // the program stopped reading; its exit status gives the reason
	}
	fed <- errors.Join(err, p.w.Close())
}

// Read implements io.Reader.
func (p *helped) Read(b []byte) (int, error) {
	if p.ended != nil {
		return 0, p.ended
	}
	n, err := p.out.Read(b)
	if n > 0 || err == nil {
		return n, nil
	}
	switch {
	case errors.Is(err, io.EOF):
		err = p.finish(false)
	case errors.Is(err, os.ErrDeadlineExceeded): // interrupted: the exit status gives the reason
		if ended := p.finish(false); ended != nil {
			err = ended
		}
	}
	if err == nil {
		err = io.EOF
	}
	p.ended = err
	return 0, err
}

// finish waits for the end and returns what was wrong with the data, if anything. kill ends the program.
func (p *helped) finish(kill bool) (err error) {
	p.once.Do(func() {
		if kill { // with its children; the group's id is not reused before the wait
			_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
		}
		closed := p.out.Close()
		fed := <-p.fed
		exit := ignoreDelay(p.cmd.Wait())
		switch {
		case p.in.err != nil:
			err = p.in.err
		case exit != nil && !kill:
			err = p.failed(exit)
		default:
			err = errors.Join(fed, closed)
		}
	})
	return err
}

// Close implements io.Closer. It must not be called concurrently with Read.
func (p *helped) Close() error {
	p.ended = io.ErrClosedPipe
	_ = p.finish(true) // killed by us
	return nil
}

// interrupt ends the program and unblocks all waits for it or its children. It is safe for concurrent use.
func (p *helped) interrupt() {
	_ = p.cmd.Process.Kill() // it may have ended
	now := time.Unix(1, 0)   // a deadline that has passed
	_ = p.out.SetReadDeadline(now)
	_ = p.w.SetWriteDeadline(now)
}

// bounded is a program that ends with a context.
type bounded struct {
	*helped
	stop func() bool
}

// until ends the program with ctx.
func (p *helped) until(ctx context.Context) bounded {
	return bounded{p, context.AfterFunc(ctx, p.interrupt)}
}

// Close implements io.Closer.
func (b bounded) Close() error {
	b.stop()
	return b.helped.Close()
}

// ignoreDelay drops the error that children of a successful program still hold its standard error.
func ignoreDelay(err error) error {
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return err
}
