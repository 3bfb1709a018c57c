package restart

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Labels by which a container asks to be restarted, as published. They count on the container alone:
// labels of its image never get there.
const (
	labelRestartStatus  = "containerd.io/restart.status"
	labelRestartPolicy  = "containerd.io/restart.policy"
	labelRestartCount   = "containerd.io/restart.count"
	labelRestartStopped = "containerd.io/restart.explicitly-stopped"
	labelRestartLog     = "containerd.io/restart.loguri"
)

// Values of labelRestartStatus that mean something.
const (
	wantRunning = "running"
	wantStopped = "stopped"
)

// restartAction is what is to be done about a container.
type restartAction int

const (
	restartNothing restartAction = iota
	restartStart
	restartStop
)

// taskNow is what a container's task is at the moment.
type taskNow struct {
	exists, ended bool
	status        uint32 // of the exit, where it ended
}

// decideRestart is the monitor's heart: what the labels ask for, given the task. A label that cannot
// be understood is errdefs.ErrInvalidArgument.
func decideRestart(labels map[string]string, now taskNow) (restartAction, error) {
	switch labels[labelRestartStatus] {
	case wantRunning:
	case wantStopped:
		if now.exists && !now.ended {
			return restartStop, nil
		}
		return restartNothing, nil
	default:
		return restartNothing, nil
	}
	if now.exists && !now.ended {
		return restartNothing, nil
	}
	name, limit, limited := strings.Cut(labels[labelRestartPolicy], ":")
	count, err := restartNumber(labelRestartCount, labels[labelRestartCount])
	if err != nil {
		return restartNothing, err
	}
	most, err := restartNumber(labelRestartPolicy, limit)
	if err != nil {
		return restartNothing, err
	}
	start := false
	switch {
	case limited && name != "on-failure":
		return restartNothing, fmt.Errorf("label %s=%s: only on-failure takes a number: %w", labelRestartPolicy, labels[labelRestartPolicy], errdefs.ErrInvalidArgument)
	case name == "", name == "always", name == "unless-stopped":
		start = labels[labelRestartStopped] != "true"
	case name == "on-failure":
		start = now.ended && now.status != 0 && (most == 0 || count < most)
	case name == "no":
	default:
		return restartNothing, fmt.Errorf("label %s=%s: want no, always, on-failure[:number] or unless-stopped: %w", labelRestartPolicy, name, errdefs.ErrInvalidArgument)
	}
	if start {
		return restartStart, nil
	}
	return restartNothing, nil
}

func restartNumber(label, text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("label %s: %q is not a number of restarts: %w", label, text, errdefs.ErrInvalidArgument)
	}
	return n, nil
}

const (
	// firstRestart and lastRestart bound how long a container that keeps ending waits.
	firstRestart = 100 * time.Millisecond
	lastRestart  = 10 * time.Second
	// settleTime is how long a container has to run to count as one that works, and how long a client
	// that just made a container or asked for one to run has to start it by itself.
	settleTime = 10 * time.Second
)

// nextRestart is the wait before the next restart, given the last wait and for how long it ran.
func nextRestart(last, ran time.Duration) time.Duration {
	if last == 0 || ran >= settleTime {
		return firstRestart
	}
	return min(2*last, lastRestart)
}
