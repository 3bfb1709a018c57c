package registry

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/proto/reason"
)

const password = "s3cret-pw"

// liar is a registry whose responses a test sets.
type liar struct {
	*httptest.Server
	requests atomic.Int64
	mu       sync.Mutex
	seen     []*http.Request
}

func newLiar(t *testing.T, answer http.HandlerFunc) *liar {
	t.Helper()
	l := &liar{}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		l.requests.Add(1)
		l.mu.Lock()
		l.seen = append(l.seen, r.Clone(t.Context()))
		l.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(l.Close)
	return l
}

func (l *liar) host() string { return l.Listener.Addr().String() }

// saw reports whether a secret was in any request.
func (l *liar) saw(secret string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.seen {
		text := fmt.Sprint(r.Header, r.URL)
		plain, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(r.Header.Get("Authorization"), "Basic "))
		if strings.Contains(text, secret) || strings.Contains(string(plain), secret) {
			return true
		}
	}
	return false
}

// open opens a repository of a server.
func open(t *testing.T, host, config string, cred Credential) *Repository {
	t.Helper()
	ref, err := Parse(host + "/team/app:1")
	if err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	r, err := New(Options{ConfigPath: config, Backoff: time.Millisecond}).Repository(ref, Access{Credential: cred})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		for range 6000 {
			if runtime.NumGoroutine() <= before+4 { // the server's own end a little later
				return
			}
			tick := time.NewTimer(10 * time.Millisecond)
			<-tick.C
		}
		t.Errorf("%d goroutines, there were %d", runtime.NumGoroutine(), before)
	})
	return r
}

func describe(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// checkError checks the class and words of an error, and that it contains no secret.
func checkError(t *testing.T, err error, is func(error) bool, words ...string) {
	t.Helper()
	if err == nil || !is(err) {
		t.Fatalf("%v (%T)", err, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
	if strings.Contains(err.Error(), password) || strings.Contains(err.Error(), "signature=") {
		t.Errorf("error contains a secret: %v", err)
	}
}

func TestErrorResponses(t *testing.T) {
	for status, want := range map[int]struct {
		is     func(error) bool
		reason reason.Reason
		tries  int64
	}{
		401: {errdefs.IsUnauthorized, reason.RegistryUnauthorized, 1}, 403: {errdefs.IsPermissionDenied, reason.RegistryDenied, 2},
		404: {errdefs.IsNotFound, reason.RegistryNotFound, 1}, 429: {errdefs.IsResourceExhausted, reason.RegistryTooMany, maxTries + 1},
		500: {errdefs.IsUnavailable, reason.RegistryFailed, maxTries + 1}, 503: {errdefs.IsUnavailable, reason.RegistryFailed, maxTries + 1},
		418: {errdefs.IsFailedPrecondition, reason.None, 2},
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			l := newLiar(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				_, _ = io.WriteString(w, `{"errors":[{"code":"TEST","message":"reported by the registry"}]}`)
			})
			r := open(t, l.host(), "", Credential{Username: "u", Password: password})
			_, err := r.Resolve(t.Context())
			checkError(t, err, want.is, l.host(), "team/app:1", fmt.Sprint(status))
			if got := reason.Of(err); got != want.reason {
				t.Errorf("resolve: reason %q, want %q", got, want.reason)
			}
			if n := l.requests.Load(); n != want.tries {
				t.Errorf("asked %d times", n)
			}
			_, err = r.Fetch(t.Context(), describe("application/x", []byte("x")), 0)
			checkError(t, err, want.is, "reported by the registry")
			if got := reason.Of(err); got != want.reason {
				t.Errorf("fetch: reason %q, want %q", got, want.reason)
			}
		})
	}
}

func TestRetries_HonourRetryAfter(t *testing.T) {
	data := []byte("at last")
	var asked []time.Time
	l := newLiar(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked = append(asked, time.Now()); len(asked) == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		_, _ = w.Write(data)
	})
	rc, err := open(t, l.host(), "", Credential{}).Fetch(t.Context(), describe("application/x", data), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	// A lower bound only: it must not retry before the stated time.
	if len(asked) != 2 || asked[1].Sub(asked[0]) < 990*time.Millisecond {
		t.Errorf("asked at %v", asked)
	}
}

func TestRedirects_Loop_Fails(t *testing.T) {
	l := newLiar(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Path+"?signature=abc", http.StatusTemporaryRedirect)
	})
	_, err := open(t, l.host(), "", Credential{}).Resolve(t.Context())
	checkError(t, err, errdefs.IsUnavailable, l.host(), "redirects more than")
	if n := l.requests.Load(); n > maxRedirects+1 {
		t.Errorf("asked %d times", n)
	}
}

func TestFetch_CutAtEveryByte_Resumes(t *testing.T) {
	data := make([]byte, 300)
	for i := range data {
		data[i] = byte(i * 7)
	}
	for _, ranges := range []bool{true, false} {
		for cut := range len(data) {
			first := true
			l := newLiar(t, func(w http.ResponseWriter, r *http.Request) {
				begin := 0
				if ranges {
					_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &begin)
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(data)-begin))
				if begin > 0 {
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", begin, len(data)-1, len(data)))
					w.WriteHeader(http.StatusPartialContent)
				}
				if first {
					first = false
					_, _ = w.Write(data[begin:cut])
					if f, ok := w.(http.Flusher); ok {
						f.Flush()
					}
					panicAbort()
				}
				_, _ = w.Write(data[begin:])
			})
			rc, err := open(t, l.host(), "", Credential{}).Fetch(t.Context(), describe("application/x", data), 0)
			if err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			got, err := io.ReadAll(rc)
			if err != nil || string(got) != string(data) {
				t.Fatalf("cut at %d, ranges %t: %d bytes, %v", cut, ranges, len(got), err)
			}
			_ = rc.Close()
			l.Close()
		}
	}
}

// panicAbort makes the server cut the connection, in the way that net/http documents for it.
func panicAbort() { panic(http.ErrAbortHandler) }

func TestFetch_BrokenTransfers_Fail(t *testing.T) {
	desc := describe("application/x", make([]byte, 1000))
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		is     func(error) bool
		words  string
	}{
		"cut again and again": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte("x"))
			w.(http.Flusher).Flush()
			panicAbort()
		}, errdefs.IsUnavailable, "breaks off"},
		"silence": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte("x"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, errdefs.IsUnavailable, "no data"},
		"too long": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Transfer-Encoding", "chunked")
			for range 2000 {
				_, _ = w.Write([]byte("x"))
			}
		}, errdefs.IsFailedPrecondition, "more than the 1000 bytes"},
		"a wrong size": {
			func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("short")) },
			errdefs.IsFailedPrecondition, "want 1000 by the descriptor",
		},
		"a wrong range": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 900-999/1000")
			w.WriteHeader(http.StatusPartialContent)
		}, errdefs.IsFailedPrecondition, "another range"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLiar(t, c.answer)
			r := open(t, l.host(), "", Credential{})
			if name == "silence" { // elsewhere, silence is a busy machine
				r.client.opts.Idle = 200 * time.Millisecond
			}
			rc, err := r.Fetch(t.Context(), desc, 0)
			if err == nil {
				_, err = io.Copy(io.Discard, rc)
				_ = rc.Close()
			}
			checkError(t, err, c.is, l.host(), "team/app:1", c.words)
		})
	}
}

func TestResolve_RefusesBadManifests(t *testing.T) {
	for name, c := range map[string]struct {
		header map[string]string
		body   int
		is     func(error) bool
		words  string
	}{
		"schema 1":       {map[string]string{"Content-Type": schema1Signed}, 10, errdefs.IsNotImplemented, "schema 1"},
		"endless":        {map[string]string{"Content-Type": ocispec.MediaTypeImageManifest}, 100 << 20, errdefs.IsInvalidArgument, "exceeds the maximum"},
		"no type at all": {map[string]string{"Content-Type": ""}, 10, errdefs.IsFailedPrecondition, "is not a manifest"},
	} {
		l := newLiar(t, func(w http.ResponseWriter, r *http.Request) {
			for k, v := range c.header {
				w.Header().Set(k, v)
			}
			if r.Method == http.MethodHead {
				w.Header().Set("Content-Length", "0")
				return
			}
			block := make([]byte, 1<<16)
			for n := 0; n < c.body; n += len(block) {
				if _, err := w.Write(block[:min(len(block), c.body)]); err != nil {
					return
				}
			}
		})
		t.Run(name, func(t *testing.T) {
			_, err := open(t, l.host(), "", Credential{}).Resolve(t.Context())
			checkError(t, err, c.is, l.host(), "team/app:1", c.words)
		})
	}
}

func TestMirrors_AreUsedInOrder(t *testing.T) {
	data := []byte("content")
	broken := newLiar(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	good := newLiar(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Token") != "abc" || !strings.HasPrefix(r.URL.Path, "/root/team/app/") {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		_, _ = w.Write(data)
	})
	own := newLiar(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	config := configured(t, "reg.example", fmt.Sprintf("server = %q\n[host.%q]\n[host.\"%s/root\"]\noverride_path = true\ncapabilities = [\"pull\"]\n[host.\"%s/root\".header]\nx-token = \"abc\"\n",
		own.URL, broken.URL, good.URL, good.URL))
	r := open(t, "reg.example", config, Credential{})
	rc, err := r.Fetch(t.Context(), describe("application/x", data), 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = rc.Close()
	if broken.requests.Load() != 1 || own.requests.Load() != 0 {
		t.Errorf("%d, %d", broken.requests.Load(), own.requests.Load())
	}
	// The second may not be used to resolve.
	_, err = r.Resolve(t.Context())
	checkError(t, err, errdefs.IsFailedPrecondition, own.Listener.Addr().String(), "before: ", broken.host())
	if good.requests.Load() != 1 {
		t.Errorf("the mirror for pulls was asked to resolve")
	}
}
