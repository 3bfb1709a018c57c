package archive

import (
	"errors"
	"io"
	"sync"
)

const (
	aheadBuffers = 4
	aheadSize    = 256 << 10
)

// ahead reads in a goroutine of its own while the reader processes the data read
// before.
type ahead struct {
	full  chan piece  // from the goroutine, closed at its end
	empty chan []byte // back to it
	stop  chan struct{}
	once  sync.Once
	done  chan struct{}
	class func(error) error
	close func() error

	current piece
	rest    []byte
}

type piece struct {
	buf []byte
	n   int
	err error
}

// Ahead reads r in a goroutine of its own, at most 1 MiB ahead of its own reader. All data of r
// has passed through it once the end has been read. The caller closes the result
// before r; Close waits for a running read of r.
func Ahead(r io.Reader) io.ReadCloser {
	return readAhead(r, func(err error) error { return err }, func() error { return nil })
}

// readAhead reads r until its end, an error (which is converted by class) or Close, which
// waits for the goroutine and then calls closeSource.
func readAhead(r io.Reader, class func(error) error, closeSource func() error) io.ReadCloser {
	a := &ahead{
		full:  make(chan piece, aheadBuffers),
		empty: make(chan []byte, aheadBuffers),
		stop:  make(chan struct{}),
		done:  make(chan struct{}),
		class: class,
		close: closeSource,
	}
	for range aheadBuffers {
		a.empty <- nil // allocated on first use
	}
	go a.run(r)
	return a
}

func (a *ahead) run(r io.Reader) {
	defer close(a.done)
	defer close(a.full)
	for {
		var buf []byte
		select {
		case buf = <-a.empty:
		case <-a.stop:
			return
		}
		if buf == nil {
			buf = make([]byte, aheadSize)
		}
		n, err := fill(r, buf)
		if err != nil && !errors.Is(err, io.EOF) {
			err = a.class(err)
		}
		// This does not block: no more pieces exist than full can hold.
		a.full <- piece{buf, n, err}
		if err != nil {
			return
		}
	}
}

// fill is io.ReadFull, but returns the reader's own errors unchanged.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// Read implements io.Reader.
func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.current.err != nil {
			return 0, a.current.err
		}
		if a.current.buf != nil {
			a.empty <- a.current.buf
		}
		next, ok := <-a.full
		if !ok {
			next = piece{err: io.ErrClosedPipe}
		}
		a.current, a.rest = next, next.buf[:next.n]
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Close implements io.Closer. It must not be called concurrently with Read.
func (a *ahead) Close() error {
	var err error
	a.once.Do(func() {
		close(a.stop)
		<-a.done
		a.current = piece{err: io.ErrClosedPipe}
		a.rest = nil
		err = a.close()
	})
	return err
}
