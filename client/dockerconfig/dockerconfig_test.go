package dockerconfig

import (
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/client"
)

func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRegistry(t *testing.T) {
	for ref, want := range map[string]string{
		"busybox": "docker.io", "user/app:1": "docker.io", "docker.io/x": "docker.io", "index.docker.io/x/y": "docker.io",
		"localhost/x": "localhost", "localhost:5000/x": "localhost:5000", "ghcr.io/a/b@sha256:00": "ghcr.io",
		"127.0.0.1:5000/x": "127.0.0.1:5000", "[::1]:5000/x": "[::1]:5000", "UPPER/x": "UPPER",
	} {
		if got := Registry(ref); got != want {
			t.Errorf("%s: %s, want %s", ref, got, want)
		}
	}
}

func TestLookup(t *testing.T) {
	helpers := t.TempDir()
	for name, script := range map[string]string{
		"good":  `read at; echo "{\"ServerURL\":\"$at\",\"Username\":\"u\",\"Secret\":\"for $at\"}"`,
		"token": `echo '{"Username":"<token>","Secret":"id"}'`,
		"empty": `echo "credentials not found in native keychain"; exit 1`,
		"ill":   `echo "locked" >&2; exit 2`,
		"wrong": `echo "not JSON"`,
		"long":  `yes`,
	} {
		if err := os.WriteFile(filepath.Join(helpers, "docker-credential-"+name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", helpers+":"+os.Getenv("PATH"))
	auth := base64.StdEncoding.EncodeToString([]byte("a:b:c"))
	var none client.Credential
	for name, c := range map[string]struct {
		file, registry string
		want           client.Credential
		fails          bool
	}{
		"by host":              {`{"auths":{"r.example:5000":{"auth":"` + auth + `"}}}`, "r.example:5000", client.Credential{Username: "a", Password: "b:c"}, false},
		"by URL":               {`{"auths":{"https://r.example/v1/":{"username":"a","password":"b"}}}`, "r.example", client.Credential{Username: "a", Password: "b"}, false},
		"by URL of plain HTTP": {`{"auths":{"http://r.example:5000/":{"username":"a","password":"b"}}}`, "r.example:5000", client.Credential{Username: "a", Password: "b"}, false},
		"by URL with a path":   {`{"auths":{"https://r.example/team/":{"username":"a","password":"b"}}}`, "r.example", client.Credential{Username: "a", Password: "b"}, false},
		"host before URL":      {`{"auths":{"http://r.example":{"username":"c","password":"d"},"r.example":{"username":"a","password":"b"}}}`, "r.example", client.Credential{Username: "a", Password: "b"}, false},
		"a port that is not":   {`{"auths":{"https://r.example:5000":{"username":"a","password":"b"}}}`, "r.example", none, false},
		"Docker's own":         {`{"auths":{"https://index.docker.io/v1/":{"identitytoken":"i"}}}`, "docker.io", client.Credential{IdentityToken: "i"}, false},
		"of another":           {`{"auths":{"r.example":{"auth":"` + auth + `"}}}`, "q.example", none, false},
		"a helper for it":      {`{"credHelpers":{"r.example":"good"},"auths":{"r.example":{"auth":"` + auth + `"}}}`, "r.example", client.Credential{Username: "u", Password: "for r.example"}, false},
		"a helper for all":     {`{"credsStore":"token"}`, "r.example", client.Credential{IdentityToken: "id"}, false},
		"one that has none":    {`{"credsStore":"empty","auths":{"r.example":{"auth":"` + auth + `"}}}`, "r.example", client.Credential{Username: "a", Password: "b:c"}, false},
		"one that is ill":      {`{"credHelpers":{"r.example":"ill"}}`, "r.example", none, true},
		"one that is wrong":    {`{"credHelpers":{"r.example":"wrong"}}`, "r.example", none, true},
		"one without end":      {`{"credHelpers":{"r.example":"long"}}`, "r.example", none, true},
		"one that is not here": {`{"credHelpers":{"r.example":"none"}}`, "r.example", none, true},
		"one that is a path":   {`{"credHelpers":{"r.example":"../../evil"}}`, "r.example", none, true},
		"not JSON":             {`{`, "r.example", none, true},
		"not base64":           {`{"auths":{"r.example":{"auth":"%"}}}`, "r.example", none, true},
	} {
		got, err := Lookup(t.Context(), write(t, "config.json", c.file, 0o600), c.registry)
		if c.fails != (err != nil) || got != c.want {
			t.Errorf("%s: %q, %v", name, []string{got.Username, got.Password, got.IdentityToken}, err)
		}
		if err != nil && strings.Contains(err.Error(), auth) {
			t.Errorf("%s: error contains a secret: %v", name, err)
		}
	}
	if got, err := Lookup(t.Context(), filepath.Join(t.TempDir(), "none"), "r.example"); err != nil || got != none {
		t.Error(err)
	}
	if _, err := Lookup(t.Context(), write(t, "config.json", strings.Repeat(" ", maxFile+1), 0o600), "x"); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
}

func TestPath(t *testing.T) {
	env := map[string]string{"HOME": "/h", "DOCKER_CONFIG": "/d"}
	get := func(k string) string { return env[k] }
	if p := Path(get); p != "/d/config.json" {
		t.Error(p)
	}
	delete(env, "DOCKER_CONFIG")
	if p := Path(get); p != "/h/.docker/config.json" {
		t.Error(p)
	}
	delete(env, "HOME")
	if p := Path(get); p != "" {
		t.Error(p)
	}
}

func FuzzCredential(f *testing.F) {
	f.Add("YTpi")
	f.Fuzz(func(t *testing.T, auth string) {
		c, err := entry{Auth: auth}.credential("p", "n")
		if err == nil && strings.Contains(c.Username, ":") {
			t.Errorf("%q: %q", auth, c.Username)
		}
	})
}

// A child of a helper may keep its output open after the helper was ended.
func TestLookup_EndsWithContext(t *testing.T) {
	helpers := t.TempDir()
	begun, ended := filepath.Join(helpers, "begun"), filepath.Join(helpers, "ended")
	for _, fifo := range []string{begun, ended} {
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script := "#!/bin/sh\n(cat " + ended + ") &\necho >" + begun + "\nwait\n"
	if err := os.WriteFile(filepath.Join(helpers, "docker-credential-stuck"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", helpers+":"+os.Getenv("PATH"))
	ctx, cancel := context.WithCancel(t.Context())
	path, done := write(t, "config.json", `{"credsStore":"stuck"}`, 0o600), make(chan error)
	go func() {
		_, err := Lookup(ctx, path, "r.example")
		done <- err
	}()
	if _, err := os.ReadFile(begun); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("it got an answer")
	}
	if err := os.WriteFile(ended, nil, 0o600); err != nil { // its child still exists, and ends
		t.Error(err)
	}
}
