package runtime

import (
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPatience_BusyProcess_LastsLonger compares a stopped process with one that works all the time:
// the limit of the first expires first.
func TestPatience_BusyProcess_LastsLonger(t *testing.T) {
	process := func(signal unix.Signal) func() int {
		cmd := exec.Command("sh", "-c", "while :; do :; done")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // it was killed
		})
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		return func() int { return cmd.Process.Pid }
	}
	const limit = 200 * time.Millisecond
	works, stopWorks := withPatience(t.Context(), limit, process(unix.SIGCONT))
	defer stopWorks()
	silent, stopSilent := withPatience(t.Context(), limit, process(unix.SIGSTOP))
	defer stopSilent()
	select {
	case <-silent.Done():
	case <-works.Done():
		t.Fatal("the limit of a process that works expired first")
	}
	if !errors.Is(context.Cause(silent), errSlow) {
		t.Errorf("cause %v", context.Cause(silent))
	}
	<-works.Done() // eventually
	if !errors.Is(context.Cause(works), errSlow) {
		t.Errorf("cause %v", context.Cause(works))
	}
}

func TestPatience_Stopped(t *testing.T) {
	ctx, stop := withPatience(t.Context(), time.Hour, func() int { return 0 })
	stop()
	if err := ctx.Err(); !errors.Is(err, context.Canceled) || errors.Is(context.Cause(ctx), errSlow) {
		t.Errorf("%v, %v", err, context.Cause(ctx))
	}
	stop() // again
}
