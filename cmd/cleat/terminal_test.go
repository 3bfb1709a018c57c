package main

import (
	"os"
	"testing"

	"github.com/containerd/console"
)

func TestATerminalThatHungUpIsGone(t *testing.T) {
	for name, connect := range map[string]func(*terminal, *os.File){
		"input":  func(t *terminal, f *os.File) { t.input = f },
		"output": func(t *terminal, f *os.File) { t.output = f },
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
		var term terminal
		connect(&term, tty)
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
		t.Error("what is no terminal hung up")
	}
}
