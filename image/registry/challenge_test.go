package registry

import (
	"net/http"
	"net/url"
	"testing"
)

func TestOneChallenge(t *testing.T) {
	const bearer = `Bearer realm="https://auth.example/token",service="reg"`
	for _, tt := range []struct {
		headers []string
		want    string
	}{
		{[]string{bearer}, bearer},
		{[]string{`Basic realm="r"`, bearer}, bearer},
		{[]string{`Basic realm="a, Bearer b=\"c\"", ` + bearer}, bearer},
		{[]string{`Negotiate, NTLM abc==, ` + bearer}, bearer},
		{[]string{`Bearer realm=https://auth.example/token,service=reg`}, bearer},
		{[]string{`bearer Realm="/token", error="invalid_token"`}, `Bearer realm="https://reg.example/token"`},
		{[]string{`Bearer`, `Basic`}, `Basic realm=""`},
		{[]string{`Basic realm="one"`, `Basic realm="two"`}, `Basic realm="one"`},
		{[]string{`Negotiate`}, `Negotiate`},
		{[]string{`"`, `=,=`, ``}, `"`},
		{nil, ``},
	} {
		resp := &http.Response{
			Header:  http.Header{},
			Request: &http.Request{URL: &url.URL{Scheme: "https", Host: "reg.example", Path: "/v2/a/manifests/1"}},
		}
		if tt.headers != nil {
			resp.Header["Www-Authenticate"] = tt.headers
		}
		if oneChallenge(resp); resp.Header.Get("Www-Authenticate") != tt.want {
			t.Errorf("%q: %q, want %q", tt.headers, resp.Header["Www-Authenticate"], tt.want)
		}
	}
}

func FuzzParseChallenges(f *testing.F) {
	f.Add(`Basic realm="a\"b", Bearer realm="x",service=y, Negotiate abc==`)
	f.Add(`,,, =" \`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, c := range parseChallenges([]string{text}) {
			if c.scheme == "" {
				t.Errorf("a challenge without a scheme in %q", text)
			}
		}
	})
}
