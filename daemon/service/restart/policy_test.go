package restart

import (
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func TestDecideRestart(t *testing.T) {
	none, running := taskNow{}, taskNow{exists: true}
	ok, failed := taskNow{exists: true, ended: true}, taskNow{exists: true, ended: true, status: 3}
	for _, tc := range []struct {
		status, policy, count, stopped string
		now                            taskNow
		want                           restartAction
	}{
		{"", "always", "", "", failed, restartNothing},
		{"created", "always", "", "", failed, restartNothing},
		{"running", "", "", "", failed, restartStart},
		{"running", "always", "7", "false", ok, restartStart},
		{"running", "always", "7", "true", ok, restartNothing},
		{"running", "", "", "true", ok, restartNothing},
		{"running", "always", "", "", none, restartStart},
		{"running", "always", "", "", running, restartNothing},
		{"running", "no", "", "", failed, restartNothing},
		{"running", "unless-stopped", "", "", ok, restartStart},
		{"running", "unless-stopped", "", "", none, restartStart},
		{"running", "unless-stopped", "", "true", failed, restartNothing},
		{"running", "on-failure", "99", "", failed, restartStart},
		{"running", "on-failure", "", "", ok, restartNothing},
		{"running", "on-failure", "", "", none, restartNothing},
		{"running", "on-failure:2", "1", "", failed, restartStart},
		{"running", "on-failure:2", "2", "", failed, restartNothing},
		{"stopped", "always", "", "", running, restartStop},
		{"stopped", "always", "", "", failed, restartNothing},
		{"stopped", "always", "", "", none, restartNothing},
	} {
		labels := map[string]string{
			labelRestartStatus: tc.status, labelRestartPolicy: tc.policy, labelRestartCount: tc.count, labelRestartStopped: tc.stopped,
		}
		if got, err := decideRestart(labels, tc.now); got != tc.want || err != nil {
			t.Errorf("%+v: %v, %v", tc, got, err)
		}
	}
	for policy, count := range map[string]string{"sometimes": "", "always:3": "", "on-failure:-1": "", "on-failure:x": "", "always": "x"} {
		labels := map[string]string{labelRestartStatus: wantRunning, labelRestartPolicy: policy, labelRestartCount: count}
		if got, err := decideRestart(labels, failed); got != restartNothing || !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s, %s: %v, %v", policy, count, got, err)
		}
	}
}

func TestNextRestart_RepeatedExits_BacksOff(t *testing.T) {
	wait := time.Duration(0)
	for range 20 {
		next := nextRestart(wait, time.Second)
		if next < wait || next > lastRestart {
			t.Fatalf("%v after %v", next, wait)
		}
		wait = next
	}
	if wait != lastRestart || nextRestart(wait, settleTime) != firstRestart {
		t.Errorf("%v; %v after a long run", wait, nextRestart(wait, settleTime))
	}
}

func FuzzRestartLabels(f *testing.F) {
	f.Add("on-failure:3", "1")
	f.Fuzz(func(t *testing.T, policy, count string) {
		labels := map[string]string{labelRestartStatus: wantRunning, labelRestartPolicy: policy, labelRestartCount: count}
		if got, err := decideRestart(labels, taskNow{exists: true, ended: true, status: 1}); err != nil && got != restartNothing {
			t.Fatalf("%v, %v", got, err)
		}
	})
}
