// Package dockerconfig finds the credential for a registry that `docker login` has stored: in the file
// config.json, or in the credential helper named in it.
//
// A helper is a program docker-credential-NAME in PATH, which is run with "get", and the registry on its
// standard input. Nothing is written, and no credential is kept.
package dockerconfig

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/client"
)

const (
	// maxFile bounds the file, maxAnswer a helper's output.
	maxFile   = 4 << 20
	maxAnswer = 1 << 20
	// waitDelay bounds the wait for children of a helper that keep its output open.
	waitDelay = time.Second
	// hub is the name of Docker's own registry there.
	hub = "https://index.docker.io/v1/"
	// tokenUser is the name by which helpers mark the secret as an identity token.
	tokenUser = "<token>"
)

type file struct {
	Auths       map[string]entry  `json:"auths"`
	CredsStore  string            `json:"credsStore"`
	CredHelpers map[string]string `json:"credHelpers"`
}

type entry struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// Path returns the path of the file: in DOCKER_CONFIG, else in the home directory; "" if there is
// neither.
func Path(env func(string) string) string {
	if dir := env("DOCKER_CONFIG"); dir != "" {
		return filepath.Join(dir, "config.json")
	}
	if home := env("HOME"); home != "" {
		return filepath.Join(home, ".docker", "config.json")
	}
	return ""
}

// Registry returns the registry of a reference, as Docker parses it: the part before the
// first slash, if it looks like a host.
func Registry(reference string) string {
	first, _, ok := strings.Cut(reference, "/")
	if !ok || !strings.ContainsAny(first, ".:") && first != "localhost" && strings.ToLower(first) == first {
		return "docker.io"
	}
	if first == "index.docker.io" {
		return "docker.io"
	}
	return first
}

// Lookup returns the credential for a registry, the zero value if there is none. A file that cannot be
// read or a helper that fails is an error.
func Lookup(ctx context.Context, path, registry string) (client.Credential, error) {
	var none client.Credential
	if path == "" {
		return none, nil
	}
	f, err := read(path)
	if err != nil {
		return none, err
	}
	names := []string{registry, "https://" + registry, "https://" + registry + "/v1/", "https://" + registry + "/v2/"}
	if registry == "docker.io" {
		names = []string{hub, "index.docker.io", "docker.io", "registry-1.docker.io"}
	}
	for _, name := range names {
		if helper := f.CredHelpers[name]; helper != "" {
			return ask(ctx, helper, name)
		}
	}
	if f.CredsStore != "" {
		for _, name := range names[:2] {
			if c, err := ask(ctx, f.CredsStore, name); err != nil || c != none {
				return c, err
			}
		}
	}
	for _, name := range names {
		if e, ok := f.Auths[name]; ok {
			return e.credential(path, name)
		}
	}
	// Other forms: any scheme, any path. The first by name, so that the result is always the same.
	for _, name := range slices.Sorted(maps.Keys(f.Auths)) {
		if registry != "docker.io" && hostOf(name) == registry {
			return f.Auths[name].credential(path, name)
		}
	}
	return none, nil
}

// hostOf returns the host, with its port, of a key that may be a URL.
func hostOf(key string) string {
	if _, rest, ok := strings.Cut(key, "://"); ok {
		key = rest
	}
	host, _, _ := strings.Cut(key, "/")
	return host
}

func read(path string) (file, error) {
	var f file
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err == nil && info.Size() > maxFile {
		err = fmt.Errorf("%s: size %d exceeds the maximum of %d: %w", path, info.Size(), maxFile, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return f, fmt.Errorf("read credentials: %w", err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return f, fmt.Errorf("read credentials: %w", err)
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return f, fmt.Errorf("read credentials: %s: invalid JSON: %w", path, errdefs.ErrInvalidArgument)
	}
	return f, nil
}

func (e entry) credential(path, name string) (client.Credential, error) {
	c := client.Credential{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
	if e.Auth == "" {
		return c, nil
	}
	raw, err := base64.StdEncoding.DecodeString(e.Auth)
	user, password, ok := strings.Cut(string(raw), ":")
	if err != nil || !ok {
		return c, fmt.Errorf("read credentials: %s: auth of %s is not base64 of USER:PASSWORD: %w", path, name, errdefs.ErrInvalidArgument)
	}
	c.Username, c.Password = user, strings.TrimRight(password, "\x00")
	return c, nil
}

// bounded accepts a number of bytes and refuses more. Its only method is Write: an embedded Buffer
// would also implement io.ReaderFrom.
type bounded struct{ buf bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if b.buf.Len()+len(p) > maxAnswer {
		return 0, errors.New("output is too long")
	}
	return b.buf.Write(p)
}

// ask runs a credential helper. A missing credential is not an error.
func ask(ctx context.Context, helper, name string) (client.Credential, error) {
	var none client.Credential
	program := "docker-credential-" + helper
	if strings.ContainsRune(helper, filepath.Separator) {
		return none, fmt.Errorf("credential helper %q: want a name, not a path: %w", helper, errdefs.ErrInvalidArgument)
	}
	var out bounded
	cmd := exec.CommandContext(ctx, program, "get")
	cmd.Stdin, cmd.Stdout = strings.NewReader(name), &out
	cmd.WaitDelay = waitDelay
	if err := cmd.Run(); err != nil {
		// By the helpers' protocol this is written to the standard output.
		if strings.Contains(out.buf.String(), "credentials not found") {
			return none, nil
		}
		return none, fmt.Errorf("run %s: %w", program, err)
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(out.buf.Bytes(), &answer); err != nil {
		return none, fmt.Errorf("run %s: invalid JSON: %w", program, errdefs.ErrInvalidArgument)
	}
	if answer.Username == tokenUser {
		return client.Credential{IdentityToken: answer.Secret}, nil
	}
	return client.Credential{Username: answer.Username, Password: answer.Secret}, nil
}
