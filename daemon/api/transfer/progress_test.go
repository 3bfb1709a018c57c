package transfer

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatproject/cleat/daemon/streams"
	"github.com/cleatproject/cleat/image"
)

// slow is a client's stream that a test reads, or does not.
type slow struct {
	ctx  context.Context
	sent chan *anypb.Any
}

func (s slow) Recv() (*anypb.Any, error) {
	<-s.ctx.Done()
	return nil, s.ctx.Err()
}

func (s slow) Send(a *anypb.Any) error {
	select {
	case s.sent <- a:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// watched returns a watcher, and the end of it that a client has.
func watched(t *testing.T) (*watcher, slow, chan error) {
	t.Helper()
	open := streams.New(streams.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	wire, ended := slow{ctx, make(chan *anypb.Any)}, make(chan error, 1)
	go func() {
		err := open.Serve(ctx, "s", "progress", wire)
		cancel() // as a transport does
		ended <- err
	}()
	<-wire.sent // the acknowledgement
	w, err := (&call{streams: open, scopes: []string{"s"}}).progress(t.Context(), "progress")
	if err != nil {
		t.Fatal(err)
	}
	return w, wire, ended
}

func TestProgress_KeepsStatesAndJoinsAmounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, wire, ended := watched(t)
		layer := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString("layer"), Size: 1000}
		manifest := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("manifest"), Size: 9}
		w.Event("Resolving from x", "")
		w.Found(layer, manifest)
		w.Part(layer, image.StateWaiting, 0)
		for n := range int64(1000) { // faster than the client takes any
			w.Part(layer, image.StateFetching, n)
		}
		w.Part(layer, image.StateFetched, 1000)
		w.Part(layer, image.StateUnpacked, 1000)
		w.Named("saved", "a:1", layer)
		var got []string
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case a := <-wire.sent:
					var p transfertypes.Progress
					if err := a.UnmarshalTo(&p); err != nil {
						t.Error(err)
					}
					name, _, _ := strings.Cut(p.GetName(), "-")
					got = append(got, p.GetEvent()+" "+name)
					if p.GetEvent() == "downloading" && p.GetProgress() != 999 {
						t.Errorf("the last amount is %d", p.GetProgress())
					}
					if name == "layer" && !slices.Equal(p.GetParents(), []string{"manifest-" + manifest.Digest.String()}) {
						t.Errorf("parents: %q", p.GetParents())
					}
				case <-wire.ctx.Done():
					return
				}
			}
		}()
		w.close(t.Context())
		if err := <-ended; err != nil {
			t.Error(err)
		}
		<-done
		want := []string{"Resolving from x ", "waiting layer", "downloading layer", "complete layer", "extracted layer", "saved a:1"}
		if !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

func TestProgress_WithoutReader_DoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, ended := watched(t)
		for range 10 {
			w.Event("Importing", "")
		}
		begun := time.Now()
		w.close(t.Context())
		if waited := time.Since(begun); waited != lastProgress {
			t.Errorf("the end waited %v", waited)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestProgress_ClientLeaves(t *testing.T) {
	open := streams.New(streams.Options{})
	ctx, leave := context.WithCancel(t.Context())
	wire, ended := slow{ctx, make(chan *anypb.Any)}, make(chan error, 1)
	go func() { ended <- open.Serve(ctx, "s", "progress", wire) }()
	<-wire.sent
	w, err := (&call{streams: open, scopes: []string{"s"}}).progress(t.Context(), "progress")
	if err != nil {
		t.Fatal(err)
	}
	leave()
	w.Event("Importing", "")
	w.wg.Wait() // it sends no more
	w.Named("saved", "a:1", ocispec.Descriptor{})
	w.close(t.Context())
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(w.queue) != 0 {
		t.Errorf("queued after the end: %v", w.queue)
	}
	if _, err := wire.Recv(); err == nil || errors.Is(err, io.EOF) {
		t.Error(err)
	}
}
