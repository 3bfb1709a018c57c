package subscribe

import (
	"fmt"
	"testing"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/runtime"
)

func TestAway_SelectsMissedEvents(t *testing.T) {
	a := away{started: time.Now()}
	deleted := func(string, string) (*runtime.Task, error) { return nil, fmt.Errorf("task: %w", errdefs.ErrNotFound) }
	unknown := func(string, string) (*runtime.Task, error) { return nil, errdefs.ErrUnavailable }
	value := func(after time.Duration) []byte {
		data, err := proto.Marshal(&apievents.TaskExit{ContainerID: "c", ID: "c", Pid: 5, ExitedAt: timestamppb.New(a.started.Add(after))})
		must(t, err)
		return data
	}
	for name, tc := range map[string]struct {
		topic string
		value []byte
		get   func(string, string) (*runtime.Task, error)
		want  bool
	}{
		"an exit before the start": {"/tasks/exit", value(-time.Hour), deleted, true},
		"one that adoption found":  {"/tasks/exit", value(adoptionTime / 2), deleted, true},
		"one long after":           {"/tasks/exit", value(2 * adoptionTime), deleted, false},
		"another event":            {"/tasks/delete", value(-time.Hour), deleted, false},
		"nonsense":                 {"/tasks/exit", []byte{0xff}, deleted, false},
		"no answer":                {"/tasks/exit", value(-time.Hour), unknown, false},
	} {
		if got := a.missed(events.Event{Topic: tc.topic, Value: tc.value}, tc.get); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	log, err := events.Open(t.TempDir(), events.Options{})
	must(t, err)
	if _, ok := a.since(a.started.Add(reconnectTime/2), log); !ok {
		t.Error("a subscriber that comes back is not known as one")
	}
	if _, ok := a.since(a.started.Add(2*reconnectTime), log); ok {
		t.Error("a late subscriber is given what was missed")
	}
	must(t, log.Close())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
