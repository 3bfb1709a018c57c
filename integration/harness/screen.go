package harness

import (
	"io"
	"sync"
)

// Screen collects the output on a terminal.
type Screen struct {
	Master io.ReadWriter
	Mu     sync.Mutex
	Grown  *sync.Cond
	Shown  string
	Seen   int // the next search starts after this offset
	Ended  bool
}

// NewScreen reads a terminal until it is closed.
func NewScreen(master io.ReadWriter) *Screen {
	s := &Screen{Master: master}
	s.Grown = sync.NewCond(&s.Mu)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			s.Mu.Lock()
			s.Shown += string(buf[:n])
			s.Ended = err != nil
			s.Grown.Broadcast()
			s.Mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

// Text returns all that was read so far.
func (s *Screen) Text() string {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	return s.Shown
}
