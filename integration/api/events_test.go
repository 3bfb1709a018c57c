package api

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
	"github.com/cleatproject/cleat/proto/rpc"
)

// stalling is a connection with a reader that can be blocked.
type stalling struct {
	net.Conn
	mu sync.Mutex // held while the reader is blocked
}

func (s *stalling) Read(b []byte) (int, error) {
	s.wait()
	return s.Conn.Read(b)
}

func (s *stalling) wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
}

// subscriber receives events over its own connection, on either transport.
type subscriber struct {
	conn    *stalling
	receive func() (*types.Envelope, error)
}

// subscribers returns one for each transport. Their contexts end with the test.
func subscribers(d *harness.Daemon, filters ...string) map[string]subscriber {
	d.T.Helper()
	ctx := d.T.Context()
	req := &eventsapi.SubscribeRequest{Filters: filters}

	raw, err := rpc.DialSocket(ctx, d.Address)
	harness.Must(d.T, err)
	overGRPC := &stalling{Conn: raw}
	conn, err := grpc.NewClient("passthrough:///cleat", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return overGRPC, nil }))
	harness.Must(d.T, err)
	d.T.Cleanup(func() { harness.Must(d.T, conn.Close()) })
	stream, err := eventsapi.NewEventsClient(conn).Subscribe(ctx, req)
	harness.Must(d.T, err)

	raw, err = rpc.DialSocket(ctx, d.Address+".ttrpc")
	harness.Must(d.T, err)
	overTTRPC := &stalling{Conn: raw}
	client := ttrpc.NewClient(overTTRPC)
	d.T.Cleanup(func() { harness.Must(d.T, client.Close()) })
	tstream, err := eventsapi.NewTTRPCEventsClient(client).Subscribe(ctx, req)
	harness.Must(d.T, err)
	return map[string]subscriber{
		"gRPC":  {overGRPC, func() (*types.Envelope, error) { return stream.Recv() }},
		"ttrpc": {overTTRPC, func() (*types.Envelope, error) { return tstream.Recv() }},
	}
}

// listening publishes events until the subscriber receives one, and returns after it received the last one published.
func listening(ctx context.Context, d *harness.Daemon, c eventsapi.EventsClient, s subscriber) {
	d.T.Helper()
	subscribed(ctx, d, c, receiverOnly{receive: s.receive})
}

// receiverOnly is the part of a subscription that receiving needs.
type receiverOnly struct {
	eventsapi.Events_SubscribeClient
	receive func() (*types.Envelope, error)
}

func (r receiverOnly) Recv() (*types.Envelope, error) { return r.receive() }

// TestEvents_SlowSubscriber_IsCutOff publishes more events than the log of the daemon keeps while some subscribers do
// not read. Other subscribers are unaffected. The slow ones receive an error when they read again.
func TestEvents_SlowSubscriber_IsCutOff(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	publisher := eventsapi.NewEventsClient(conn)
	slow, good := subscribers(d), subscribers(d, `topic~=^/(hello|go|load)`)
	for _, s := range slow {
		listening(ctx, d, publisher, s)
		s.conn.mu.Lock() // stops reading
	}
	for _, s := range good {
		listening(ctx, d, publisher, s)
	}
	const count, size, ahead = 5000, 20 << 10, 1000 // 100 MB; the log keeps 64 MiB, and a reader may lag by 20 MB
	var readers sync.WaitGroup
	lags, gone := make(map[string]chan struct{}), make(chan struct{})
	leave := sync.OnceFunc(func() { close(gone) })
	for transport, s := range good {
		lag := make(chan struct{}, ahead)
		lags[transport] = lag
		readers.Go(func() {
			defer leave() // the publisher no longer waits for it
			for i := 0; i < count; {
				e, err := s.receive()
				if err != nil {
					t.Errorf("%s: a reading subscriber was cut off at %d: %v", transport, i, err)
					return
				}
				if e.GetTopic() != "/load" {
					continue // from the start of the other subscription
				}
				if want := fmt.Sprintf("%d;", i); !strings.HasPrefix(string(e.GetEvent().GetValue()), want) {
					t.Errorf("%s: got %.10q, want %q", transport, e.GetEvent().GetValue(), want)
					return
				}
				i++
				<-lag
			}
		})
	}
	body := strings.Repeat("x", size)
	for i := range count {
		for _, lag := range lags {
			select {
			case lag <- struct{}{}:
			case <-gone:
			}
		}
		_, err := publisher.Publish(ctx, &eventsapi.PublishRequest{
			Topic: "/load", Event: &anypb.Any{TypeUrl: "load", Value: fmt.Appendf(nil, "%d;%s", i, body)},
		})
		harness.Must(t, err)
	}
	readers.Wait()
	for transport, s := range slow {
		s.conn.mu.Unlock()
		got := 0
		for {
			if _, err := s.receive(); err != nil {
				if status.Code(err) != codes.OutOfRange || !strings.Contains(err.Error(), "no longer kept") {
					t.Errorf("%s: a slow subscriber ends with %v", transport, err)
				}
				break
			}
			if got++; got > count {
				t.Errorf("%s: a subscriber that did not read received every event", transport)
				break
			}
		}
		t.Logf("%s: cut off after %d events", transport, got)
	}
}

// TestDaemonStop_StuckSubscribers_DoNotBlock stops a daemon with subscribers that do not read.
func TestDaemonStop_StuckSubscribers_DoNotBlock(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	publisher := eventsapi.NewEventsClient(conn)
	for _, s := range subscribers(d) {
		listening(ctx, d, publisher, s)
		s.conn.mu.Lock()
		defer s.conn.mu.Unlock()
	}
	for range 100 { // more than the socket buffers hold
		_, err := publisher.Publish(ctx, &eventsapi.PublishRequest{Topic: "/load", Event: &anypb.Any{TypeUrl: "load", Value: make([]byte, 100<<10)}})
		harness.Must(t, err)
	}
	d.Stop() // fails if that takes long
}

// TestEvents_OfContainers_AreInOrder runs containers in parallel in two namespaces. Subscribers receive the events of
// each in order, with its namespace, and only events that match their filter.
func TestEvents_OfContainers_AreInOrder(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	namespaces := []string{"one", "two"}
	for _, ns := range namespaces {
		d.Cleat("namespace", "create", ns)
		d.Cleat("--namespace", ns, "image", "import", "--name", "busybox", harness.BusyboxArchive(t))
	}
	_, conn := fixture.GRPC(d)
	publisher := eventsapi.NewEventsClient(conn)
	hello := []string{"topic==/hello", "topic==/go"}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "containerd-namespace", "default")
	subscriptions := map[string]map[string]subscriber{
		"all":       subscribers(d),
		"tasks":     subscribers(d, append(hello, `topic~=^/tasks/`)...),
		"namespace": subscribers(d, append(hello, `topic~=^/tasks/,namespace==two`)...),
		"container": subscribers(d, append(hello, `event.container_id==c1`)...),
		"exit":      subscribers(d, append(hello, `topic==/tasks/exit,event.exit_status==3`)...),
	}
	for _, subs := range subscriptions {
		for _, s := range subs {
			listening(ctx, d, publisher, s)
		}
	}
	const each = 3
	harness.Parallel(each*len(namespaces), func(i int) {
		lifeOfTask(d, namespaces[i%2], fmt.Sprintf("c%d", i/2))
	})
	_, err := publisher.Publish(ctx, &eventsapi.PublishRequest{Topic: "/go", Event: &anypb.Any{TypeUrl: "end", Value: []byte{1}}})
	harness.Must(t, err)

	life := []string{"/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"}
	every := make(map[string][]string)
	for i := range each {
		for _, ns := range namespaces {
			every[fmt.Sprintf("%s/c%d", ns, i)] = life
		}
	}
	only := func(keep func(string) bool, topics []string) map[string][]string {
		some := make(map[string][]string)
		for c := range every {
			if keep(c) {
				some[c] = topics
			}
		}
		return some
	}
	anyOf := func(string) bool { return true }
	want := map[string]map[string][]string{
		"all": every, "tasks": every,
		"namespace": only(func(c string) bool { return strings.HasPrefix(c, "two/") }, life),
		"container": only(func(c string) bool { return strings.HasSuffix(c, "/c1") }, life),
		"exit":      only(anyOf, []string{"/tasks/exit"}),
	}
	for name, subs := range subscriptions {
		for transport, s := range subs {
			if got := tasksSeen(t, s); !maps.EqualFunc(got, want[name], slices.Equal) {
				t.Errorf("%s over %s: received %v, want %v", name, transport, got, want[name])
			}
		}
	}
}

// tasksSeen returns the topics of each task's events, up to the mark at the end.
func tasksSeen(t *testing.T, s subscriber) map[string][]string {
	t.Helper()
	seen := make(map[string][]string)
	for {
		e, err := s.receive()
		harness.Must(t, err)
		if e.GetEvent().GetTypeUrl() == "end" {
			return seen
		}
		if !strings.HasPrefix(e.GetTopic(), "/tasks/") {
			continue
		}
		m, err := e.GetEvent().UnmarshalNew()
		harness.Must(t, err)
		id, ok := m.(interface{ GetContainerID() string })
		if !ok {
			t.Fatalf("%s carries %T", e.GetTopic(), m)
		}
		key := e.GetNamespace() + "/" + id.GetContainerID()
		seen[key] = append(seen[key], e.GetTopic())
	}
}

// lifeOfTask takes a container that exits with 3 through its life in a namespace.
func lifeOfTask(d *harness.Daemon, ns, id string) {
	_, stderr, code := d.Try("--namespace", ns, "run", "--rm", "--name", id, "busybox", "sh", "-c", "exit 3")
	if code != 3 {
		d.T.Errorf("run %s in %s: code %d, %s", id, ns, code, stderr)
	}
}

// TestPublish_InvalidEvent_IsRefused publishes invalid events, which change nothing.
func TestPublish_InvalidEvent_IsRefused(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	ctx, conn := fixture.GRPC(d)
	c := eventsapi.NewEventsClient(conn)
	before := fixture.LastCursor(d)
	event := &anypb.Any{TypeUrl: "x", Value: []byte{1}}
	for _, topic := range []string{"", "x", "/", "/a/", "/a//b", "/a b", "/a/-b"} {
		if _, err := c.Publish(ctx, &eventsapi.PublishRequest{Topic: topic, Event: event}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("publish on %q: %v", topic, err)
		}
	}
	if _, err := c.Publish(ctx, &eventsapi.PublishRequest{Topic: "/a"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("publish without an event: %v", err)
	}
	for _, e := range []*types.Envelope{
		nil, {}, {Namespace: "n-", Topic: "/a", Event: event}, {Namespace: "n", Topic: "a", Event: event}, {Namespace: "n", Topic: "/a"},
	} {
		if e != nil {
			e.Timestamp = timestamppb.Now()
		}
		if _, err := c.Forward(ctx, &eventsapi.ForwardRequest{Envelope: e}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("forward of %v: %v", e, err)
		}
	}
	if _, err := c.Publish(ctx, &eventsapi.PublishRequest{Topic: "/a/b-c", Event: event}); err != nil {
		t.Errorf("publish: %v", err)
	}
	if after := fixture.LastCursor(d); after != before+3 { // the event, and the creation and deletion of mark
		t.Errorf("%d events were published", after-before)
	}
	for _, filter := range []string{"topic==", "topic~=(", "=="} {
		sub, err := c.Subscribe(ctx, &eventsapi.SubscribeRequest{Filters: []string{filter}})
		if err == nil {
			_, err = sub.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("filter %q: %v", filter, err)
		}
	}
}
