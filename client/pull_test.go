package client_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
)

type sendProgress = func(*cleatapi.TransferProgress) error

// puller is a daemon whose Pull is what a test says.
func puller(t *testing.T, pull func(context.Context, *cleatapi.PullRequest, sendProgress) error) *client.Client {
	return newFake(t, map[string]*ttrpc.ServiceDesc{cleatapi.ImagesService: {Streams: map[string]ttrpc.Stream{
		"Pull": rpc.ServerStream(pull),
	}}}).dial()
}

func TestPullTellsOfItsProgress(t *testing.T) {
	var got *cleatapi.PullRequest
	c := puller(t, func(_ context.Context, r *cleatapi.PullRequest, send sendProgress) error {
		got = r
		return errors.Join(
			send(&cleatapi.TransferProgress{Items: []*cleatapi.TransferItem{{Digest: "d", State: "downloading", Done: 1, Total: 2}}}),
			send(&cleatapi.TransferProgress{Items: []*cleatapi.TransferItem{{Digest: "d", State: "unpacked", Done: 2, Total: 2}}, Image: &cleatapi.Image{Name: "n", Digest: "x"}}),
		)
	})
	var parts []client.Part
	for range 2 { // the connection is of use again
		parts = nil
		img, err := c.Pull(t.Context(), client.PullRequest{
			Reference: "ref", Platform: "p", AllPlatforms: true, Snapshotter: "s", NoUnpack: true, MaxConcurrentDownloads: 4,
			Credential: client.Credential{Username: "u", Password: "p", IdentityToken: "i", RegistryToken: "r"},
		}, func(p []client.Part) { parts = append(parts, p...) })
		if err != nil || img.Name != "n" || img.Digest != "x" {
			t.Fatalf("%+v, %v", img, err)
		}
	}
	if want := []client.Part{{Digest: "d", State: "downloading", Done: 1, Total: 2}, {Digest: "d", State: "unpacked", Done: 2, Total: 2}}; !reflect.DeepEqual(parts, want) {
		t.Errorf("%+v", parts)
	}
	cred := got.Credential
	if got.Namespace != "blue" || got.Reference != "ref" || got.Platform != "p" || !got.AllPlatforms || got.Snapshotter != "s" || !got.NoUnpack ||
		got.MaxConcurrentDownloads != 4 || cred.Username != "u" || cred.Password != "p" || cred.IdentityToken != "i" || cred.RegistryToken != "r" {
		t.Errorf("%+v", got)
	}
}

func TestPullsThatEndBadly(t *testing.T) {
	c := puller(t, func(_ context.Context, r *cleatapi.PullRequest, send sendProgress) error {
		switch r.Reference {
		case "refused":
			return fmt.Errorf("pull refused: no: %w", errdefs.ErrUnauthenticated)
		case "broken":
			return errors.Join(send(&cleatapi.TransferProgress{Items: []*cleatapi.TransferItem{{Digest: "d"}}}), errdefs.ErrUnavailable)
		}
		return nil
	})
	for ref, is := range map[string]func(error) bool{
		"refused": errdefs.IsUnauthorized, "broken": errdefs.IsUnavailable, "mute": errdefs.IsUnavailable,
	} {
		if _, err := c.Pull(t.Context(), client.PullRequest{Reference: ref}, nil); !is(err) || strings.Count(err.Error(), "pull ") != 1 {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestLeavingAPullEndsIt(t *testing.T) {
	ended := make(chan struct{})
	c := puller(t, func(ctx context.Context, _ *cleatapi.PullRequest, send sendProgress) error {
		if err := send(&cleatapi.TransferProgress{Items: []*cleatapi.TransferItem{{Digest: "d"}}}); err != nil {
			return err
		}
		<-ctx.Done()
		close(ended)
		return ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.Pull(ctx, client.PullRequest{Reference: "x"}, func([]client.Part) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-ended
}

func TestCredentialsDoNotPrint(t *testing.T) {
	c := client.Credential{Username: "u", Password: "secret"}
	if text := fmt.Sprintf("%v %+v %#v %s", c, c, c, c); strings.Contains(text, "secret") {
		t.Error(text)
	}
}
