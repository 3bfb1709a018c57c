package client_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	apitypes "github.com/containerd/containerd/api/types"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// part returns the event of a part in a state.
func part(digest, state string, done int64) *transfertypes.Progress {
	return &transfertypes.Progress{
		Event: state, Name: "layer-" + digest, Progress: done, Total: 2, Desc: &apitypes.Descriptor{Digest: digest, MediaType: "m", Size: 2},
	}
}

func saved(name string) *transfertypes.Progress {
	return &transfertypes.Progress{Event: "saved", Name: name}
}

func TestPull_ReportsProgress(t *testing.T) {
	var from cleatapi.Registry
	var to cleatapi.ImageStore
	shown := make(chan struct{}, 2)
	c := transferring(t, func(_ context.Context, a *asked) error {
		a.into(a.source, cleatapi.RegistryType, &from)
		a.into(a.destination, cleatapi.ImageStoreType, &to)
		if a.namespace != "blue" {
			t.Errorf("in the namespace %q", a.namespace)
		}
		if err := a.report(&transfertypes.Progress{Event: "Pulling"}, part("d", "downloading", 1)); err != nil {
			return err
		}
		<-shown
		return a.report(part("d", "unpacking", 2), part("d", "unpacked", 2), saved("n"))
	}, &cleatapi.Image{Name: "other"}, &cleatapi.Image{Name: "n", Digest: "x"}).dial()
	for range 2 { // the connection can be used again
		var parts []client.Part
		img, err := c.Pull(t.Context(), client.PullRequest{
			Reference: "ref", Platform: "p", AllPlatforms: true, Snapshotter: "s", NoUnpack: true, MaxConcurrentDownloads: 4,
		}, func(p []client.Part) {
			if parts = append(parts, p...); len(parts) == 1 {
				shown <- struct{}{}
			}
		})
		if err != nil || img.Name != "n" || img.Digest != "x" {
			t.Fatalf("%+v, %v", img, err)
		}
		want := client.Part{Digest: "d", MediaType: "m", State: "downloading", Done: 1, Total: 2}
		last := client.Part{Digest: "d", MediaType: "m", State: "unpacked", Done: 2, Total: 2}
		if len(parts) < 2 || parts[0] != want || parts[len(parts)-1] != last {
			t.Errorf("%+v", parts)
		}
	}
	if want := (cleatapi.Registry{Reference: "ref", MaxConcurrent: 4}); !reflect.DeepEqual(from, want) {
		t.Errorf("from %+v", from)
	}
	if want := (cleatapi.ImageStore{Platform: "p", AllPlatforms: true, Snapshotter: "s", NoUnpack: true}); !reflect.DeepEqual(to, want) {
		t.Errorf("to %+v", to)
	}
}

func TestPush_ReturnsPushedImage(t *testing.T) {
	var from cleatapi.ImageStore
	var to cleatapi.Registry
	c := transferring(t, func(_ context.Context, a *asked) error {
		a.into(a.source, cleatapi.ImageStoreType, &from)
		a.into(a.destination, cleatapi.RegistryType, &to)
		return a.report(part("d", "mounted", 2), &transfertypes.Progress{Event: "Completed push to full", Desc: &apitypes.Descriptor{
			Digest: "x", MediaType: "m", Size: 5, Annotations: map[string]string{cleatapi.NameAnnotation: "full"},
		}})
	}).dial()
	var parts []client.Part
	img, err := c.Push(t.Context(), client.PushRequest{
		Reference: "ref", Image: "i", Platform: "p", MaxConcurrentUploads: 4, Referrers: true,
	}, func(p []client.Part) { parts = append(parts, p...) })
	if want := (client.Image{Name: "full", Digest: "x", MediaType: "m"}); err != nil || !reflect.DeepEqual(img, want) {
		t.Errorf("%+v, %v", img, err)
	}
	if len(parts) != 1 || parts[0].State != "mounted" {
		t.Errorf("%+v", parts)
	}
	if want := (cleatapi.ImageStore{Names: []string{"i"}, Platform: "p", Referrers: true}); !reflect.DeepEqual(from, want) {
		t.Errorf("from %+v", from)
	}
	if want := (cleatapi.Registry{Reference: "ref", MaxConcurrent: 4}); !reflect.DeepEqual(to, want) {
		t.Errorf("to %+v", to)
	}
}

// The credential is sent when the registry's stream asks for it, in the required form.
func TestCredentials_AreSentOnRequest(t *testing.T) {
	const basic, bearer = `Basic realm="x"`, `Bearer realm="x"`
	all := client.Credential{Username: "u", Password: "p", IdentityToken: "i", RegistryToken: "r"}
	for what, c := range map[string]struct {
		cred      client.Credential
		challenge string
		want      *transfertypes.AuthResponse
	}{
		"a password":          {client.Credential{Username: "u", Password: "p"}, bearer, &transfertypes.AuthResponse{AuthType: transfertypes.AuthType_CREDENTIALS, Username: "u", Secret: "p"}},
		"an identity token":   {client.Credential{Username: "u", IdentityToken: "i"}, bearer, &transfertypes.AuthResponse{AuthType: transfertypes.AuthType_REFRESH, Username: "u", Secret: "i"}},
		"a registry token":    {client.Credential{RegistryToken: "r"}, bearer, &transfertypes.AuthResponse{AuthType: transfertypes.AuthType_HEADER, Secret: "Bearer r"}},
		"all, for a token":    {all, bearer, &transfertypes.AuthResponse{AuthType: transfertypes.AuthType_HEADER, Secret: "Bearer r"}},
		"all, for a password": {all, basic, &transfertypes.AuthResponse{AuthType: transfertypes.AuthType_CREDENTIALS, Username: "u", Secret: "p"}},
		"nobody":              {client.Credential{}, bearer, nil},
	} {
		t.Run(what, func(t *testing.T) {
			d := transferring(t, func(_ context.Context, a *asked) error {
				var from cleatapi.Registry
				a.into(a.source, cleatapi.RegistryType, &from)
				if (from.AuthStream != "") != (c.want != nil) {
					t.Errorf("the stream for credentials is %q", from.AuthStream)
				}
				for range 2 { // again if the answer expires
					if c.want == nil {
						break
					}
					got, err := a.ask(from.AuthStream, c.challenge)
					if err != nil {
						return err
					}
					if got.GetAuthType() != c.want.GetAuthType() || got.GetUsername() != c.want.GetUsername() || got.GetSecret() != c.want.GetSecret() {
						t.Errorf("answered %v", got)
					}
				}
				return a.report(saved("n"))
			}, &cleatapi.Image{Name: "n"}).dial()
			if _, err := d.Pull(t.Context(), client.PullRequest{Reference: "ref", Credential: c.cred}, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPull_Failures(t *testing.T) {
	c := transferring(t, func(_ context.Context, a *asked) error {
		var from cleatapi.Registry
		a.into(a.source, cleatapi.RegistryType, &from)
		switch from.Reference {
		case "refused":
			return fmt.Errorf("pull refused: no: %w", errdefs.ErrUnauthenticated)
		case "broken":
			return errors.Join(a.report(part("d", "waiting", 0)), errdefs.ErrUnavailable)
		case "gone":
			return a.report(saved("n"))
		}
		return nil
	}).dial()
	for ref, is := range map[string]func(error) bool{
		"refused": errdefs.IsUnauthorized, "broken": errdefs.IsUnavailable, "mute": errdefs.IsUnavailable, "gone": errdefs.IsNotFound,
	} {
		if _, err := c.Pull(t.Context(), client.PullRequest{Reference: ref}, nil); !is(err) || strings.Count(err.Error(), "pull ") != 1 {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestPull_Cancelled_Ends(t *testing.T) {
	ended := make(chan struct{})
	c := transferring(t, func(ctx context.Context, a *asked) error {
		if err := a.report(part("d", "waiting", 0)); err != nil {
			return err
		}
		<-ctx.Done()
		close(ended)
		return ctx.Err()
	}).dial()
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.Pull(ctx, client.PullRequest{Reference: "x"}, func([]client.Part) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-ended
}

// A caller that does not return from its progress blocks only itself.
func TestProgress_SlowCaller_DelaysNoOther(t *testing.T) {
	const many = 1000 // more than a stream of ttrpc holds
	reported := make(chan struct{})
	c := transferring(t, func(_ context.Context, a *asked) error {
		for i := range int64(many) {
			if err := a.report(part("d", "downloading", i)); err != nil {
				return err
			}
		}
		close(reported)
		return a.report(saved("n"))
	}, &cleatapi.Image{Name: "n"}).dial()
	var last client.Part
	_, err := c.Pull(t.Context(), client.PullRequest{Reference: "x"}, func(p []client.Part) {
		<-reported
		last = p[len(p)-1]
	})
	if err != nil || last.Done != many-1 {
		t.Errorf("%+v, %v", last, err)
	}
}

func TestCredential_DoesNotPrint(t *testing.T) {
	c := client.Credential{Username: "u", Password: "secret"}
	if text := fmt.Sprintf("%v %+v %#v %s", c, c, c, c); strings.Contains(text, "secret") {
		t.Error(text)
	}
}
