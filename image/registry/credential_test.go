package registry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/proto/reason"
)

// tokens answers like a registry with a token server that requires the user.
func tokens(want string, scope *string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			*scope = r.URL.Query().Get("scope")
			user, pass, _ := r.BasicAuth()
			if want != "" && user+":"+pass != want {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			_, _ = io.WriteString(w, `{"token":"good"}`)
		case r.Header.Get("Authorization") != "Bearer good":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="s",scope="repository:team/app:pull"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
		default:
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.Header().Set(contentDigest, someDigest)
			w.Header().Set("Content-Length", "5")
		}
	}
}

func TestTokens(t *testing.T) {
	var scope string
	for name, c := range map[string]struct {
		want string
		cred Credential
		ok   bool
	}{
		"anonymous": {"", Credential{}, true}, "a user": {"u:" + password, Credential{Username: "u", Password: password}, true},
		"a wrong password":       {"u:other", Credential{Username: "u", Password: password}, false},
		"a token of the user's":  {"never", Credential{RegistryToken: "good"}, true},
		"one for something else": {"never", Credential{RegistryToken: "for another scope"}, false},
	} {
		l := newLiar(t, tokens(c.want, &scope))
		desc, err := open(t, l.host(), "", c.cred).Resolve(t.Context())
		if c.ok != (err == nil) || c.ok && desc.Digest != someDigest {
			t.Errorf("%s: %+v, %v", name, desc, err)
		}
		if !c.ok {
			checkError(t, err, errdefs.IsUnauthorized, l.host())
			if r := reason.Of(err); r != reason.RegistryUnauthorized {
				t.Errorf("reason %q", r)
			}
		}
	}
	if scope != "repository:team/app:pull" {
		t.Errorf("asked for the scope %q", scope)
	}
}

func TestCredentials_StayAtRegistry(t *testing.T) {
	data := []byte("content")
	cred := Credential{Username: "u", Password: password}
	other := newLiar(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" && r.URL.Query().Get("ask") != "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="give"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write(data)
	})
	for name, query := range map[string]string{"redirect": "?signature=abc", "redirect to one that asks": "?ask=1&signature=abc"} {
		l := newLiar(t, func(w http.ResponseWriter, r *http.Request) {
			if _, _, ok := r.BasicAuth(); !ok {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			http.Redirect(w, r, other.URL+"/blob"+query, http.StatusTemporaryRedirect)
		})
		config := configured(t, l.host(), fmt.Sprintf("server = %q\n[header]\nx-secret = %q\n", l.URL, password))
		rc, err := open(t, l.host(), config, cred).Fetch(t.Context(), describe("application/x", data), 0)
		if err == nil {
			_ = rc.Close()
		} else {
			checkError(t, err, errdefs.IsUnauthorized, l.host())
		}
		if !l.saw(password) || other.saw(password) {
			t.Errorf("%s: the registry saw the secret: %t, the other: %t", name, l.saw(password), other.saw(password))
		}
	}
	// A mirror does not get it either, whatever it sends.
	mirror := newLiar(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="give"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	own := newLiar(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) })
	config := configured(t, "reg.example", fmt.Sprintf("server = %q\n[host.%q]\ncapabilities = [\"pull\"]\n", own.URL, mirror.URL))
	rc, err := open(t, "reg.example", config, cred).Fetch(t.Context(), describe("application/x", data), 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = rc.Close()
	if mirror.requests.Load() == 0 || mirror.saw(password) {
		t.Errorf("the mirror got %d requests, saw the secret: %t", mirror.requests.Load(), mirror.saw(password))
	}
}

func TestCredentials_RegistryListedAsHost_GetsThem(t *testing.T) {
	var scope string
	l := newLiar(t, tokens("u:"+password, &scope))
	config := configured(t, l.host(), fmt.Sprintf("server = %q\n[host.%q]\ncapabilities = [\"pull\", \"resolve\"]\n", l.URL, l.URL))
	if _, err := open(t, l.host(), config, Credential{Username: "u", Password: password}).Resolve(t.Context()); err != nil {
		t.Error(err)
	}
}

// Texts of a registry or its token server are shown on terminals.
func TestErrors_HoldNoControlCharacters(t *testing.T) {
	for name, path := range map[string]string{"the registry": "/v2/team/app/blobs/", "its authority": "/token"} {
		l := newLiar(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="s"`, r.Host))
			if strings.HasPrefix(r.URL.Path, path) {
				w.WriteHeader(http.StatusForbidden)
				_, _ = io.WriteString(w, "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"said \\u001b[2J\\u009b2J\\r\"}]}")
				return
			}
			w.WriteHeader(http.StatusUnauthorized)
		})
		_, err := open(t, l.host(), "", Credential{}).Fetch(t.Context(), describe("application/x", []byte("x")), 0)
		checkError(t, err, errdefs.IsPermissionDenied, "said")
		if strings.ContainsFunc(err.Error(), unicode.IsControl) {
			t.Errorf("%s: %q", name, err)
		}
	}
}

func TestCredential_DoesNotPrint(t *testing.T) {
	c := Credential{Username: "u", Password: password, IdentityToken: password}
	for _, text := range []string{fmt.Sprint(c), fmt.Sprintf("%+v %#v %s %q", c, c, c, c), c.LogValue().String()} {
		if strings.Contains(text, password) {
			t.Error(text)
		}
	}
	err := fail("x", "y", &host{}, errors.New("z"))
	if !errdefs.IsUnavailable(err) {
		t.Error(err)
	}
}
