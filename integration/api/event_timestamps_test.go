package api

import (
	"context"
	"fmt"
	"testing"
	"time"

	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// TestEvents_CursorsGrowAndTimeStampsDoNotDecrease publishes in parallel from shims, the daemon and forwarders with
// wrong clocks, and restarts the daemon while shims have unsent events.
func TestEvents_CursorsGrowAndTimeStampsDoNotDecrease(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Busybox()
	ctx, conn := fixture.GRPC(d)
	forward := func(at time.Time) {
		_, err := eventsapi.NewEventsClient(conn).Forward(ctx, &eventsapi.ForwardRequest{Envelope: &types.Envelope{
			Timestamp: timestamppb.New(at), Namespace: "default", Topic: "/forwarded",
			Event: &anypb.Any{TypeUrl: "x", Value: []byte{1}},
		}})
		if err != nil {
			t.Error(err)
		}
	}
	harness.Parallel(12, func(i int) {
		forward(time.Now().Add(-time.Hour))
		d.Cleat("run", "--rm", "--name", fmt.Sprint("c", i), "busybox", "true")
		forward(time.Now().Add(24 * time.Hour))
		d.Cleat("image", "tag", "busybox", fmt.Sprint("tag", i))
	})
	for i := range 5 {
		d.Cleat("run", "-d", "--name", fmt.Sprint("left", i), "busybox", "sh", "-c", "read x < /proc/1/fd/0; exit 3")
	}
	d.Kill9() // while the containers end
	d.Begin()
	d.Cleat("image", "tag", "busybox", "after")
	end := fixture.LastCursor(d)

	var last client.Event
	n := 0
	ctx, cancel := context.WithTimeout(t.Context(), harness.Limit)
	defer cancel()
	for e, err := range fixture.Client(d).Events(ctx, client.EventsRequest{FromStart: true, AllNamespaces: true}) {
		harness.Must(t, err)
		if e.Cursor <= last.Cursor {
			t.Errorf("%s has the cursor %d after %d of %s", e.Topic, e.Cursor, last.Cursor, last.Topic)
		}
		if e.Time.Before(last.Time) {
			t.Errorf("%s has the time %v after %v of %s", e.Topic, e.Time, last.Time, last.Topic)
		}
		if e.Time.After(time.Now()) {
			t.Errorf("%s has the time %v, which is in the future", e.Topic, e.Time)
		}
		last = e
		if n++; e.Cursor >= end {
			break
		}
	}
	if n < 12*7 {
		t.Errorf("only %d events", n)
	}
}
