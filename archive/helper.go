package archive

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"

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

// helped is a helper at work.
type helped struct {
	cmd   *exec.Cmd
	in    *input
	out   *os.File
	fed   chan error // sent once the source has been read, or the helper has stopped reading
	once  sync.Once
	ended error // what every Read answers from then on
}

// start runs the helper on a source. It gets two pipes, no environment, and nothing else.
func (h Helper) start(src io.Reader, in *input) (_ io.ReadCloser, err error) {
	var files [4]*os.File // the helper's ends, then ours
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
		_, _ = unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, pipeSize) // beyond a limit it stays smaller
	}
	cmd := &exec.Cmd{
		Path: h.Path, Args: append([]string{h.Path}, h.Args...), Env: []string{}, Dir: "/",
		Stdin: files[0], Stdout: files[1], SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start decompressor %s: %w", h.Path, err)
	}
	p := &helped{cmd: cmd, in: in, out: files[2], fed: make(chan error, 1)}
	go p.feed(src, files[3])
	return p, nil
}

// feed gives the source to the helper.
func (p *helped) feed(src io.Reader, w *os.File) {
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{src}, make([]byte, copyBuffer))
	if errors.Is(err, syscall.EPIPE) {
		err = nil // it has stopped reading, and says by its exit why
	}
	p.fed <- errors.Join(err, w.Close())
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
		err = p.finish()
	}
	if err == nil {
		err = io.EOF
	}
	p.ended = err
	return 0, err
}

// finish waits for the end and says what was wrong with the data, if anything.
func (p *helped) finish() (err error) {
	p.once.Do(func() {
		closed := p.out.Close()
		fed := <-p.fed
		exit := p.cmd.Wait()
		switch {
		case p.in.err != nil:
			err = p.in.err
		case exit != nil:
			err = fmt.Errorf("compressed data is damaged or cut short: %s: %w: %w: %w", p.cmd.Path, exit, io.ErrUnexpectedEOF, errdefs.ErrInvalidArgument)
		default:
			err = errors.Join(fed, closed)
		}
	})
	return err
}

// Close implements io.Closer. It must not run beside Read.
func (p *helped) Close() error {
	p.ended = io.ErrClosedPipe
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.finish()           // that it was killed is no news
	return nil
}
