package goclient

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"

	"github.com/cleatproject/cleat/integration/harness"
)

// subscribe subscribes to the events that match the filter. It returns when the subscription has started, which the
// call itself does not report.
func (f *fixture) subscribe(filter string) (<-chan *events.Envelope, <-chan error) {
	f.Helper()
	got, errs := f.client.Subscribe(f.ctx, filter, `topic=="/test/ready"`)
	wanted := make(chan *events.Envelope, 64)
	ready := make(chan struct{})
	var done sync.WaitGroup
	ctx, cancel := context.WithCancel(f.ctx)
	f.Cleanup(func() { cancel(); done.Wait() })
	done.Go(func() {
		var once sync.Once
		for {
			select {
			case e := <-got:
				if e.Topic == "/test/ready" {
					once.Do(func() { close(ready) })
				} else {
					wanted <- e
				}
			case <-ctx.Done():
				return
			}
		}
	})
	harness.Eventually(f.T, "the subscription stands", func() error {
		f.must(f.client.EventService().Publish(f.ctx, "/test/ready", &eventsapi.ContainerDelete{}))
		select {
		case <-ready:
			return nil
		default:
			return errors.New("not yet")
		}
	})
	return wanted, errs
}

func TestEvents_LifeOfContainer(t *testing.T) {
	f := start(t)
	got, errs := f.subscribe(`namespace==tests,topic~=^/(tasks|containers)/`)
	task, exit := f.begin(f.container("life", "sh", "-c", "exit 5"), cio.NullIO)
	f.code(exit)
	_, err := task.Delete(f.ctx)
	f.must(err)
	c, err := f.client.LoadContainer(f.ctx, "life")
	f.must(err)
	f.remove(c)

	want := []string{"/containers/create", "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete", "/containers/delete"}
	var topics []string
	for !slices.Contains(topics, "/containers/delete") {
		select {
		case e := <-got:
			if e.Namespace != "tests" || e.Timestamp.IsZero() {
				t.Errorf("envelope %+v", e)
			}
			topics = append(topics, e.Topic)
			value, err := typeurl.UnmarshalAny(e.Event)
			f.must(err)
			if x, ok := value.(*eventsapi.TaskExit); ok && (x.ExitStatus != 5 || x.ContainerID != "life" || x.ID != "life" || x.Pid != task.Pid()) {
				t.Errorf("exit %+v", x)
			}
		case err := <-errs:
			t.Fatalf("after %q: %v", topics, err)
		case <-time.After(harness.Limit):
			t.Fatalf("only %q", topics)
		}
	}
	if !slices.Equal(topics, want) {
		t.Errorf("topics %q\n  want %q", topics, want)
	}
}

func TestEvents_Published_AreDelivered(t *testing.T) {
	f := start(t)
	got, errs := f.subscribe(`topic=="/test/mine"`)
	sent := &eventsapi.ContainerCreate{ID: "x", Image: "y"}
	f.must(f.client.EventService().Publish(f.ctx, "/test/mine", sent))
	at := time.Now().Add(-time.Minute).UTC()
	value, err := typeurl.MarshalAny(sent)
	f.must(err)
	f.must(f.client.EventService().Forward(f.ctx, &events.Envelope{Timestamp: at, Namespace: "elsewhere", Topic: "/test/mine", Event: value}))
	for _, ns := range []string{"tests", "elsewhere"} {
		select {
		case e := <-got:
			back, err := typeurl.UnmarshalAny(e.Event)
			f.must(err)
			if x, ok := back.(*eventsapi.ContainerCreate); !ok || x.ID != "x" || e.Namespace != ns {
				t.Errorf("received %+v", e)
			}
			// Its time, or a later one: the times of events do not decrease.
			if ns == "elsewhere" && e.Timestamp.Before(at) {
				t.Errorf("forwarded at %s, received at %s", at, e.Timestamp)
			}
		case err := <-errs:
			t.Fatal(err)
		case <-time.After(harness.Limit):
			t.Fatal("no event")
		}
	}
}

func TestServerInfo(t *testing.T) {
	f := start(t)
	if ok, err := f.client.IsServing(f.ctx); err != nil || !ok {
		t.Errorf("serving: %v, %v", ok, err)
	}
	v, err := f.client.Version(f.ctx)
	f.must(err)
	if !regexp.MustCompile(`^\d+\.\d+\.\d+\+cleat\.[0-9A-Za-z.-]+$`).MatchString(v.Version) {
		t.Errorf("version %q does not name containerd's and cleat's", v.Version)
	}
	// The reason in an error's details is not part of its text.
	if _, err := f.client.GetImage(f.ctx, "no/such:image"); !errdefs.IsNotFound(err) || strings.Contains(err.Error(), "IMAGE_NOT_FOUND") || strings.Contains(err.Error(), "google") {
		t.Errorf("image that does not exist: %v", err)
	}
	first, err := f.client.Server(f.ctx)
	f.must(err)
	f.daemon.Restart()
	f.connected()
	again, err := f.dial().Server(f.ctx)
	f.must(err)
	if first.UUID == "" || first.UUID != again.UUID {
		t.Errorf("uuid %q, after a restart %q", first.UUID, again.UUID)
	}
	listed, err := plugins(f.ctx, f.dial())
	f.must(err)
	have := make(map[string]bool)
	for _, p := range listed.Plugins {
		have[p.Type+"/"+p.ID] = p.InitErr == nil
	}
	for _, want := range []string{
		"io.containerd.snapshotter.v1/overlayfs", "io.containerd.snapshotter.v1/native", "io.containerd.content.v1/content",
		"io.containerd.grpc.v1/tasks", "io.containerd.grpc.v1/images", "io.containerd.differ.v1/walking",
	} {
		if !have[want] {
			t.Errorf("no working plugin %s", want)
		}
	}
	caps, err := f.client.GetSnapshotterSupportedPlatforms(f.ctx, "overlayfs")
	f.must(err)
	if caps == nil {
		t.Error("overlayfs has no platforms")
	}
	if _, err := f.client.GetSnapshotterSupportedPlatforms(f.ctx, "nonesuch"); err == nil || !strings.Contains(err.Error(), "nonesuch") {
		t.Errorf("platforms of a missing snapshotter: %v", err)
	}
}
