package subscribe

import (
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/runtime"
)

// What happened while the daemon was away.
//
// A client of the containerd API learns of an exit from its event alone, and its subscription ends
// with the daemon. An exit while there was no daemon is announced when the shim is adopted, which is
// before most clients are back. So a subscription that begins within reconnectTime after a start is
// first given the exits for which no client was connected.

const (
	// reconnectTime is how long clients may take to come back: theirs wait 3 s between attempts.
	reconnectTime = 30 * time.Second
	// adoptionTime is how long after the start an exit counts as one that happened before it. That of a
	// container whose shim died is dated to when it was found out, which may take longer.
	adoptionTime = 2 * time.Second
)

// away is what there is to know of the daemon's start.
type away struct {
	started time.Time
	cursor  uint64 // the event log's end at the start
}

// since returns the cursor after which what was missed stands, or false where a new subscriber is
// not one that comes back.
func (a *away) since(now time.Time, log *events.Log) (uint64, bool) {
	if now.Sub(a.started) > reconnectTime {
		return 0, false
	}
	return max(a.cursor, log.Oldest()), true
}

// missed reports whether an event announces an exit that happened while the daemon was away. That of
// a container which has been started again since is not: its client knew.
func (a *away) missed(e events.Event, get func(namespace, id string) (*runtime.Task, error)) bool {
	if e.Topic != "/tasks/exit" {
		return false
	}
	var exit apievents.TaskExit
	if err := proto.Unmarshal(e.Value, &exit); err != nil {
		return false
	}
	late := exit.GetExitedAt().AsTime().After(a.started.Add(adoptionTime))
	t, err := get(e.Namespace, exit.GetContainerID())
	if err != nil {
		return !late && errdefs.IsNotFound(err)
	}
	if late && t.Info().ShimPid != 0 { // a shim has reported it to this daemon
		return false
	}
	pid := t.Info().Pid // 0 until the shim has reported it
	return exit.GetID() != exit.GetContainerID() || pid == 0 || pid == exit.GetPid()
}
