package archive

import (
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

// Helper is a program that decompresses its standard input to its standard output, and fails where
// that is damaged or cut short.
type Helper struct {
	// Format is what it reads.
	Format Compression
	// Path is absolute: helpers are never looked up in a PATH.
	Path string
	Args []string
}

// Helpers returns the programs of this system that decompress faster than this package does. They
// are looked for where Debian's packages isal and pigz put them, and only taken where nobody but root
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

// check refuses a program that others than root could have written.
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

// pipeSize is what the pipes to and from a helper hold, in bytes; less where the system allows less.
const pipeSize = 1 << 20

// nobody is whom a helper runs as, where this process may choose.
const nobody = 65534

// start runs the helper on a source. It gets two pipes, no environment, and nothing else.
func (h Helper) start(src io.WriterTo, in *input) (io.ReadCloser, error) {
	cmd := &exec.Cmd{
		Path: h.Path, Args: append([]string{h.Path}, h.Args...), Env: []string{}, Dir: "/",
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	return pipeThrough(cmd, src, in, func(exit error) error {
		return fmt.Errorf("compressed data is damaged or cut short: %s: %w: %w: %w", h.Path, exit, io.ErrUnexpectedEOF, errdefs.ErrInvalidArgument)
	})
}

// helped is a program at work on a stream.
type helped struct {
	cmd    *exec.Cmd
	in     *input
	out, w *os.File               // what it writes, and what it is fed by
	failed func(exit error) error // says what it means that the program failed
	fed    chan error             // sent once the source has been read, or the program has stopped reading
	once   sync.Once
	ended  error // what every Read answers from then on
}

// pipeThrough starts a program with the source as its standard input; what it writes is read from the
// result.
func pipeThrough(cmd *exec.Cmd, src io.WriterTo, in *input, failed func(exit error) error) (_ *helped, err error) {
	var files [4]*os.File // the program's ends, then ours
	defer func() {
		for i, f := range files {
			if f != nil && (i < 2 || err != nil) {
				err = errors.Join(err, f.Close())
			}
		}
	}()
	if files[0], files[3], err = os.Pipe(); err != nil {
		return nil, err
	}
	if files[2], files[1], err = os.Pipe(); err != nil {
		return nil, err
	}
	for _, f := range files[2:] {
		enlarge(f)
	}
	cmd.Stdin, cmd.Stdout = files[0], files[1]
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p := &helped{cmd: cmd, in: in, out: files[2], w: files[3], failed: failed, fed: make(chan error, 1)}
	go p.feed(src)
	return p, nil
}

// enlarge makes a pipe hold more; beyond a limit it stays smaller. The descriptor stays one that does
// not block, which deadlines need.
func enlarge(f *os.File) {
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
}

// feed gives the source to the program.
func (p *helped) feed(src io.WriterTo) {
	_, err := src.WriteTo(p.w)
	if errors.Is(err, syscall.EPIPE) {
		err = nil // it has stopped reading, and says by its exit why
	}
	p.fed <- errors.Join(err, p.w.Close())
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
	if errors.Is(err, io.EOF) {
		err = p.finish(false)
	}
	if err == nil {
		err = io.EOF
	}
	p.ended = err
	return 0, err
}

// finish waits for the end and says what was wrong with the data, if anything. kill brings the end about.
func (p *helped) finish(kill bool) (err error) {
	p.once.Do(func() {
		if kill { // with its children; the group's number is its own as long as it is not waited for
			_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
		}
		closed := p.out.Close()
		fed := <-p.fed
		exit := ignoreDelay(p.cmd.Wait())
		switch {
		case p.in.err != nil:
			err = p.in.err
		case exit != nil:
			err = p.failed(exit)
		default:
			err = errors.Join(fed, closed)
		}
	})
	return err
}

// Close implements io.Closer. It must not run beside Read.
func (p *helped) Close() error {
	p.ended = io.ErrClosedPipe
	_ = p.finish(true) // that it was killed is no news
	return nil
}

// interrupt ends the program and whoever waits for it or its children. It may run beside all else.
func (p *helped) interrupt() {
	_ = p.cmd.Process.Kill() // it may have ended
	now := time.Unix(1, 0)   // a deadline that has passed
	_ = p.out.SetReadDeadline(now)
	_ = p.w.SetWriteDeadline(now)
}

// ignoreDelay drops the error that a program succeeded whose children still hold its standard error.
func ignoreDelay(err error) error {
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return err
}
