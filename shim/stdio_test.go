package shim_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/fifo"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// run creates and starts.
func (s *shimUnder) run(req *task.CreateTaskRequest) {
	s.t.Helper()
	ctx := within(s.t)
	must[task.CreateTaskResponse](ctx, s, "Create", req)
	must[task.StartResponse](ctx, s, "Start", &task.StartRequest{Id: s.id})
}

func (s *shimUnder) wait() uint32 {
	s.t.Helper()
	return must[task.WaitResponse](within(s.t), s, "Wait", &task.WaitRequest{Id: s.id}).ExitStatus
}

func (s *shimUnder) remove() {
	s.t.Helper()
	must[task.DeleteResponse](within(s.t), s, "Delete", &task.DeleteRequest{Id: s.id})
}

// The container has exactly the descriptors that it should have.
func TestContainer_Descriptors(t *testing.T) {
	d := newDaemon(t)
	s := launch(t, d, "fds", args("ls", "/proc/self/fd"))
	req := s.request()
	req.Stdin, req.Stdout, req.Stderr = s.fifo("in"), s.fifo("out"), s.fifo("err")
	out := s.collect(req.Stdout)
	s.run(req)
	if code := s.wait(); code != 0 {
		t.Errorf("exit %d", code)
	}
	// 3 is the directory that ls reads.
	if got := receive(within(t), t, out); got != "0\n1\n2\n3\n" {
		t.Errorf("descriptors %q", got)
	}
}

// Invariant 4: no byte of plain stdio passes through the shim.
func TestOutput_BypassesShim(t *testing.T) {
	const size = 256 << 20
	d := newDaemon(t)
	s := launch(t, d, "bytes", args("dd", "if=/dev/zero", "bs=65536", "count="+strconv.Itoa(size/65536)))
	req := s.request()
	req.Stdout = s.fifo("out")
	r, err := fifo.OpenReader(req.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	must[task.CreateTaskResponse](within(t), s, "Create", req)
	before := ioOf(t, s.cmd.Process.Pid)
	must[task.StartResponse](within(t), s, "Start", &task.StartRequest{Id: s.id})
	n, err := io.Copy(io.Discard, r)
	if err != nil || n != size {
		t.Errorf("read %d, %v", n, err)
	}
	if code := s.wait(); code != 0 {
		t.Errorf("exit %d", code)
	}
	after := ioOf(t, s.cmd.Process.Pid)
	for _, k := range []string{"rchar", "wchar"} {
		if moved := after[k] - before[k]; moved > 256<<10 {
			t.Errorf("%s of the shim grew by %d", k, moved)
		}
	}
}

// ioOf sums over the threads: the process's own file counts its dead children too.
func ioOf(t *testing.T, pid int) map[string]int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/io", pid))
	if err != nil || len(files) == 0 {
		t.Fatal("no threads: ", err)
	}
	out := make(map[string]int)
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(data)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			n, err := strconv.Atoi(value)
			if err != nil {
				t.Fatal(err)
			}
			out[key] += n
		}
	}
	return out
}

func TestStdin_EndOfFile(t *testing.T) {
	ctx := within(t)
	d := newDaemon(t)
	s := launch(t, d, "stdin", args("cat"))
	req := s.request()
	req.Stdin, req.Stdout = s.fifo("in"), s.fifo("out")
	out := s.collect(req.Stdout)
	s.run(req)
	for _, text := range []string{"one ", "two"} { // a client disconnects, another connects
		w, err := fifo.OpenWriter(ctx, req.Stdin)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
	}
	if st := must[task.StateResponse](ctx, s, "State", &task.StateRequest{Id: s.id}); st.Status != types.Status_RUNNING {
		t.Errorf("before CloseIO: %v", st.Status)
	}
	for range 2 {
		must[types.Empty](ctx, s, "CloseIO", &task.CloseIORequest{Id: s.id, Stdin: true})
	}
	if code := s.wait(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if got := receive(ctx, t, out); got != "one two" {
		t.Errorf("output %q", got)
	}
}

// The client disconnects during a burst; the container neither dies nor loses a byte.
func TestStdio_ClientReconnects(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprint("terminal ", terminal), func(t *testing.T) {
			d := newDaemon(t)
			s := launch(t, d, "leave", func(spec map[string]any) {
				args("seq", "1", "60000")(spec)
				spec["process"].(map[string]any)["terminal"] = terminal
			})
			req := s.request()
			req.Stdout, req.Terminal = s.fifo("out"), terminal
			s.run(req)
			var got bytes.Buffer
			for range 5 {
				r, err := fifo.OpenReader(req.Stdout)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.CopyN(&got, r, 20000); err != nil {
					t.Fatal(err)
				}
				_ = r.Close()
			}
			r, err := fifo.OpenReader(req.Stdout)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(&got, r); err != nil {
				t.Fatal(err)
			}
			_ = r.Close()
			if code := s.wait(); code != 0 {
				t.Errorf("exit %d", code)
			}
			lines := strings.Fields(got.String())
			if len(lines) != 60000 || lines[59999] != "60000" {
				t.Errorf("%d lines", len(lines))
			}
		})
	}
}

func TestLogFile(t *testing.T) {
	d := newDaemon(t)
	log := filepath.Join(inMemory(t), "logs", "out.log") // a disk may take longer than an exit waits for it
	for i := range 2 {                                   // the second appends
		s := launch(t, d, "log"+strconv.Itoa(i), args("sh", "-c", "readlink /proc/self/fd/1; seq 1 20000; echo err >&2"))
		req := s.request()
		req.Stdout, req.Stderr = "file://"+log, "file://"+log
		s.run(req)
		if code := s.wait(); code != 0 {
			t.Errorf("exit %d", code)
		}
		// Complete as soon as the exit is known.
		data, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Fields(string(data))
		if len(lines) != (i+1)*20002 || lines[len(lines)-1] != "err" || lines[len(lines)-2] != "20000" {
			t.Errorf("%d words, the last %q", len(lines), lines[max(0, len(lines)-2):])
		}
		if filepath.Base(lines[0]) != "log.out" { // the pipe, not the log
			t.Errorf("the container's stdout is %s", lines[0])
		}
		s.remove()
	}
}

// inMemory is a directory on no disk.
func inMemory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A logger that exits at once may have forked, or read nothing: the container is created
// nevertheless.
func TestLogger_ExitsAtOnce_CreateSucceeds(t *testing.T) {
	d := newDaemon(t)
	for name, status := range map[string]string{"well": "0", "badly": "7"} {
		script := filepath.Join(d.state, name)
		if err := os.WriteFile(script, []byte("#!/bin/busybox sh\nexit "+status+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		s := launch(t, d, "logger-"+name, args("sh", "-c", "exit 5"))
		req := s.request()
		req.Stdout = "binary://" + script
		req.Stderr = req.Stdout
		s.run(req)
		if code := s.wait(); code != 5 {
			t.Errorf("%s: exit code %d", name, code)
		}
		s.remove()
	}
}

func TestLogger(t *testing.T) {
	d := newDaemon(t)
	script := filepath.Join(d.state, "logger")
	text := "#!/bin/busybox sh\n" +
		"out=" + d.state + "/logged\n" +
		"echo $CONTAINER_NAMESPACE/$CONTAINER_ID $* > $out\n" +
		"exec 5>&-\n" +
		"cat <&4 >> $out.err &\n" +
		"cat <&3 >> $out\n" +
		"wait; echo end >> $out\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	s := launch(t, d, "logger", args("sh", "-c", "echo out; echo err >&2"))
	req := s.request()
	req.Stdout = "binary://" + script + "?level=info"
	req.Stderr = req.Stdout
	s.run(req)
	s.wait()
	s.remove()
	want := "test/logger level info\nout\nend\n"
	eventually(t, func() bool {
		got, _ := os.ReadFile(filepath.Join(d.state, "logged"))
		return string(got) == want
	})
	if got, _ := os.ReadFile(filepath.Join(d.state, "logged.err")); string(got) != "err\n" {
		t.Errorf("stderr %q", got)
	}
	// A logger that cannot become ready fails the create.
	b := launch(t, d, "badlogger", args("true"))
	req = b.request()
	req.Stdout = "binary:///nonexistent"
	if _, err := call[task.CreateTaskResponse](within(t), b, "Create", req); err == nil {
		t.Error("create with a missing logger succeeded")
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	ctx := within(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("it does not come true")
		}
	}
}

// The exit is reported at once though another process still has the output open, and delete does
// not wait for that either.
func TestBackgroundProcess_KeepsOutputOpen(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		for _, own := range []bool{false, true} {
			t.Run(fmt.Sprintf("terminal %v own pids %v", terminal, own), func(t *testing.T) {
				d := newDaemon(t)
				s := launch(t, d, "bg", func(spec map[string]any) {
					args("sh", "-c", "sleep 1000 & echo ok")(spec)
					spec["process"].(map[string]any)["terminal"] = terminal
					if !own {
						l := spec["linux"].(map[string]any)
						l["namespaces"] = l["namespaces"].([]any)[1:]
					}
				})
				req := s.request()
				req.Stdout, req.Terminal = s.fifo("out"), terminal
				out := s.collect(req.Stdout)
				s.run(req)
				s.wait() // each within a minute
				s.remove()
				if got := strings.TrimSpace(receive(within(t), t, out)); got != "ok" {
					t.Errorf("output %q", got)
				}
			})
		}
	}
}

// Throughput compared with two processes on a bare FIFO. The exact ratio is for bench, on a quiet machine;
// here the container only must not be slower by an order of magnitude every time: other work of the
// machine may delay it once.
func TestOutput_AsFastAsFIFO(t *testing.T) {
	d := newDaemon(t)
	for i := range 5 {
		bare, took := rates(t, d, strconv.Itoa(i))
		t.Logf("bare %v, container %v: %.2f of its rate", bare, took, bare.Seconds()/took.Seconds())
		if took <= 5*bare+time.Second {
			return
		}
	}
	t.Error("the container is slower")
}

// rates is how long a gigabyte takes through a bare FIFO, and from a container.
func rates(t *testing.T, d *daemon, name string) (bare, took time.Duration) {
	t.Helper()
	const size = 1 << 30
	path := filepath.Join(d.state, "bare"+name)
	if err := fifo.Create(path, 0o600); err != nil {
		t.Fatal(err)
	}
	dd := []string{"dd", "if=/dev/zero", "bs=65536", "count=" + strconv.Itoa(size/65536)}
	cmd := exec.Command("/bin/busybox", dd...)
	hold, child, err := fifo.Sink(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hold.Close() }()
	cmd.Stdout = child
	bare = readTime(t, path, size, func() {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = child.Close()
	})
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}

	s := launch(t, d, "fast"+name, args(dd...))
	req := s.request()
	req.Stdout = s.fifo("out")
	return bare, readTime(t, req.Stdout, size, func() { s.run(req) })
}

// readTime is how long it takes from the first byte to the last.
func readTime(t *testing.T, path string, size int64, start func()) time.Duration {
	t.Helper()
	r, err := fifo.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	start()
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if n, err := io.Copy(io.Discard, r); err != nil || n != size-1 {
		t.Fatalf("read %d, %v", n, err)
	}
	return time.Since(began)
}
