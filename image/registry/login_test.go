package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// asking opens a repository of a server with a callback for the credential.
func asking(t *testing.T, host string, ask func(host, reference string, challenges []string) (Credential, error)) *Repository {
	t.Helper()
	ref, err := Parse(host + "/team/app:1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(Options{Backoff: time.Millisecond}).Repository(ref, Access{
		Ask: func(_ context.Context, host, reference string, challenges []string) (Credential, error) {
			return ask(host, reference, challenges)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func TestAccess_AsksForCredentialOnce(t *testing.T) {
	var scope string
	for name, c := range map[string]struct {
		give  Credential
		asked int
	}{
		"for good":           {Credential{Username: "u", Password: password}, 1},
		"until it is over":   {Credential{Username: "u", Password: password, Expires: time.Unix(1, 0)}, 2},
		"over in the future": {Credential{Username: "u", Password: password, Expires: time.Now().Add(time.Hour)}, 1},
	} {
		l := newLiar(t, tokens("u:"+password, &scope))
		asked := 0
		r := asking(t, l.host(), func(host, reference string, challenges []string) (Credential, error) {
			asked++
			if host != l.host() || reference != l.host()+"/team/app:1" || len(challenges) != 1 || !strings.HasPrefix(challenges[0], "Bearer realm=") {
				t.Errorf("asked for %s at %s by %q", reference, host, challenges)
			}
			return c.give, nil
		})
		if _, err := r.Resolve(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Another scope requires another token, of the same user.
		if _, err := r.Exists(t.Context(), describe("application/x", nil)); err != nil {
			t.Fatal(err)
		}
		if asked != c.asked {
			t.Errorf("%s: asked %d times", name, asked)
		}
	}
	r := asking(t, newLiar(t, tokens("u:"+password, &scope)).host(), func(string, string, []string) (Credential, error) {
		return Credential{}, errors.New("the line is dead")
	})
	_, err := r.Resolve(t.Context())
	checkError(t, err, errdefs.IsUnauthorized, "the line is dead")
}

func TestAccess_Header_IsSentToRegistryOnly(t *testing.T) {
	const header = "Custom " + password
	elsewhere := newLiar(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	l := newLiar(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != header {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://nowhere.invalid/token"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, fmt.Sprintf("http://%s/blob", elsewhere.host()), http.StatusTemporaryRedirect)
	})
	r := asking(t, l.host(), func(string, string, []string) (Credential, error) { return Credential{Authorization: header}, nil })
	rc, err := r.Fetch(t.Context(), describe("application/x", []byte("hello")), 0)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(rc)
	if err := errors.Join(err, rc.Close()); err != nil || string(raw) != "hello" {
		t.Errorf("%q, %v", raw, err)
	}
	if !l.saw(password) || elsewhere.saw(password) {
		t.Errorf("the registry saw the header: %v, where it redirects: %v", l.saw(password), elsewhere.saw(password))
	}
	r = asking(t, l.host(), func(string, string, []string) (Credential, error) {
		return Credential{Authorization: "Custom wrong"}, nil
	})
	_, err = r.Resolve(t.Context())
	checkError(t, err, errdefs.IsUnauthorized, "refused")
}
