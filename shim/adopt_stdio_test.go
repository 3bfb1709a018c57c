package shim_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cleatproject/cleat/fifo"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/shimapi"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// A log loses and duplicates nothing while shims die one after the other and the container writes faster
// than the pipe holds. It writes until the test stops it, after the last adoption: an init that ends
// without a shim is covered by TestAdopt_DeadInit. It ends by itself after 430 MB, in case the test is
// killed.
func TestAdopt_LosesNoOutput(t *testing.T) {
	for _, run := range []bool{false, true} {
		t.Run(fmt.Sprint("run ", run), func(t *testing.T) {
			d := newDaemon(t)
			s := launch(t, d, "logs", args("sh", "-c",
				"n=0; until [ -e /tmp/go ] || [ $n -ge 50000000 ]; do seq $((n+1)) $((n+20000)); n=$((n+20000)); done; echo $n >&2; exit 9"))
			log := filepath.Join(d.state, "out.log")
			req := s.request()
			req.Stdout, req.Stderr = "file://"+log, "file://"+log+".err"
			if run {
				if _, err := rpc.Call[shimapi.RunResponse](within(t), s.client, shimapi.Service, "Run", &shimapi.RunRequest{Create: req}); err != nil {
					t.Fatal(err)
				}
			} else {
				s.run(req)
			}
			var size int64 // when a shim died; the next one moves more than a pipe holds
			for range 4 {
				eventually(t, func() bool { fi, err := os.Stat(log); return err == nil && fi.Size() > size+200000 })
				s.kill9()
				fi, err := os.Stat(log)
				if err != nil {
					t.Fatal(err)
				}
				size = fi.Size()
				s.adopt()
			}
			s.status() // it serves once it has adopted
			s.proceed()
			if code := s.wait(); code != 9 {
				t.Errorf("exit %d", code)
			}
			data, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for line := range strings.Lines(string(data)) {
				if n++; line != strconv.Itoa(n)+"\n" {
					t.Fatalf("line %d is %q", n, line)
				}
			}
			if text, err := os.ReadFile(log + ".err"); err != nil || string(text) != strconv.Itoa(n)+"\n" {
				t.Errorf("%d lines; stderr %q, %v", n, text, err)
			}
			s.remove()
			for _, name := range []string{"log.out", "log.err"} {
				if _, err := os.Lstat(filepath.Join(s.bundle, name)); !os.IsNotExist(err) {
					t.Errorf("%s is left: %v", name, err)
				}
			}
		})
	}
}

// FIFOs: the process keeps its ends; those that the shim held are held again.
func TestAdopt_HoldsFIFOs(t *testing.T) {
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprint("stdin closed ", closed), func(t *testing.T) {
			ctx := within(t)
			d := newDaemon(t)
			s := launch(t, d, "fifos", args("cat"))
			req := s.request()
			req.Stdin, req.Stdout = s.fifo("in"), s.fifo("out")
			s.run(req)
			// A client stays while there is no shim to prevent an early end of file.
			w, err := fifo.OpenWriter(ctx, req.Stdin)
			if err != nil {
				t.Fatal(err)
			}
			if closed {
				must[types.Empty](ctx, s, "CloseIO", &task.CloseIORequest{Id: s.id, Stdin: true})
			}
			s.kill9()
			s.adopt()
			s.status() // it serves once it has adopted
			if _, err := io.WriteString(w, "one "); err != nil {
				t.Fatal(err)
			}
			if !closed {
				_ = w.Close()
				if w, err = fifo.OpenWriter(ctx, req.Stdin); err != nil { // the process has not seen an end
					t.Fatal(err)
				}
			}
			if _, err := io.WriteString(w, "two"); err != nil {
				t.Fatal(err)
			}
			out := s.collect(req.Stdout) // held for a late client
			_ = w.Close()
			if !closed {
				if st := s.status(); st != types.Status_RUNNING {
					t.Errorf("it is %v", st)
				}
				must[types.Empty](ctx, s, "CloseIO", &task.CloseIORequest{Id: s.id, Stdin: true})
			}
			if code := s.wait(); code != 0 { // not killed for lack of a reader
				t.Errorf("exit %d", code)
			}
			s.remove()
			if got := receive(ctx, t, out); got != "one two" {
				t.Errorf("output %q", got)
			}
		})
	}
}

// A logger owns the pipe and keeps running; it ends with the container.
func TestAdopt_LoggerKeepsRunning(t *testing.T) {
	ctx := within(t)
	d := newDaemon(t)
	script, logged := filepath.Join(d.state, "logger"), filepath.Join(d.state, "logged")
	text := "#!/bin/busybox sh\nexec 5>&-\ncat <&3 >> " + logged + "\necho end >> " + logged + "\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	s := launch(t, d, "logger", args("sh", "-c", "echo one; until [ -e /tmp/go ]; do sleep 0.02; done; echo two"))
	req := s.request()
	req.Stdout = "binary://" + script
	s.run(req)
	d.await(ctx, t, "start")
	s.kill9()
	s.adopt()
	s.proceed()
	if code := s.wait(); code != 0 {
		t.Errorf("exit %d", code)
	}
	s.remove()
	eventually(t, func() bool {
		got, _ := os.ReadFile(logged)
		return string(got) == "one\ntwo\nend\n"
	})
}

// The kernel hangs up a terminal whose shim died. An init that survives is adopted without it.
func TestAdopt_TerminalLost(t *testing.T) {
	d := newDaemon(t)
	s := launch(t, d, "tty", func(spec map[string]any) {
		args("sh", "-c", "trap '' HUP; echo set; until [ -e /tmp/go ]; do sleep 0.02; done; exit 6")(spec)
		spec["process"].(map[string]any)["terminal"] = true
	})
	req := s.request()
	req.Terminal, req.Stdout = true, s.fifo("out")
	r, err := fifo.OpenReader(req.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	s.run(req)
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	s.kill9()
	s.adopt()
	s.proceed()
	if code := s.wait(); code != 6 {
		t.Errorf("exit %d", code)
	}
	s.remove()
}
