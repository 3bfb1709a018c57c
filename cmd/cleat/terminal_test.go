package main

import (
	"errors"
	"os"
	"testing"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
)

func TestTerminal_HungUp_IsReported(t *testing.T) {
	for name, connect := range map[string]func(*terminal, console.Console){
		"input":  func(t *terminal, c console.Console) { t.input = c },
		"output": func(t *terminal, c console.Console) { t.output = c },
	} {
		master, path, err := console.NewPty()
		if err != nil {
			t.Fatal(err)
		}
		tty, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tty.Close() }()
		c, err := openConsole(tty)
		if err != nil {
			t.Fatal(err)
		}
		var term terminal
		connect(&term, c)
		if term.gone() {
			t.Errorf("%s: gone though it is there", name)
		}
		if err := master.Close(); err != nil {
			t.Fatal(err)
		}
		if !term.gone() {
			t.Errorf("%s: there though it hung up", name)
		}
	}
	if new(terminal).gone() {
		t.Error("a file that is not a terminal hung up")
	}
}

func TestRawMode_PassesEveryByteAndIsUndone(t *testing.T) {
	master, path, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = master.Close() }()
	tty, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tty.Close() }()
	state := func() unix.Termios {
		s, err := unix.IoctlGetTermios(int(master.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return *s
	}
	before := state()
	var term terminal
	if term.input, err = openConsole(tty); err != nil {
		t.Fatal(err)
	}
	if err := term.makeRaw(); err != nil {
		t.Fatal(err)
	}
	raw := state()
	if raw.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG|unix.IEXTEN) != 0 || raw.Iflag&(unix.ICRNL|unix.IXON) != 0 || raw.Oflag&unix.OPOST != 0 {
		t.Errorf("raw mode: %+v", raw)
	}
	for range 2 {
		if err := term.restore(); err != nil {
			t.Error(err)
		}
	}
	if after := state(); after != before {
		t.Errorf("restored to %+v, was %+v", after, before)
	}
	if flags, err := unix.FcntlInt(term.input.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("the stream has become blocking: %x, %v", flags, err)
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := openConsole(file); !errors.Is(err, console.ErrNotAConsole) {
		t.Errorf("a file that is not a terminal: %v", err)
	}
}
