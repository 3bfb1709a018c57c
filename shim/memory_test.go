package shim_test

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cleatproject/cleat/proto/task"
)

// privateKiB returns a process's private memory.
func privateKiB(t *testing.T, pid int) int {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	sum := 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 2 && (fields[0] == "Private_Dirty:" || fields[0] == "Private_Clean:") {
			n, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}

// The budget of the design: the private memory of an idle shim, ten of them.
func TestIdleShim_Memory(t *testing.T) {
	const shims, budget = 10, 1331 // KiB, 1.3 MiB
	ctx := within(t)
	d := newDaemon(t)
	var all []*shimUnder
	for i := range shims {
		s := launchBuild(t, d, "idle"+strconv.Itoa(i), args("sleep", "1000"), product)
		req := s.request()
		req.Stdin, req.Stdout, req.Stderr = s.fifo("in"), s.fifo("out"), s.fifo("err")
		must[task.CreateTaskResponse](ctx, s, "Create", req)
		must[task.StartResponse](ctx, s, "Start", &task.StartRequest{Id: s.id})
		if err := execOnce(ctx, t, s, "probe", 3); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = call[task.WaitResponse](ctx, s, "Wait", &task.WaitRequest{Id: s.id}) }()
		all = append(all, s)
	}
	// They settle when their timers have run; how soon depends on the machine.
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	sum := 0
	for range 600 {
		<-tick.C
		sum = 0
		for _, s := range all {
			sum += privateKiB(t, s.cmd.Process.Pid)
		}
		if sum/shims <= budget {
			break
		}
	}
	t.Logf("%d KiB each", sum/shims)
	if sum/shims > budget {
		t.Errorf("%d KiB of private memory each, budget %d", sum/shims, budget)
	}
}
